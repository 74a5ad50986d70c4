"""Packages in folders and in S3, the latter on a real server process."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest

from singer_ray.config import ExportConfig
from singer_ray.errors import UserError
from singer_ray.publishing.manifest import MANIFEST, Manifest, write_manifest
from singer_ray.publishing.store import Store
from singer_ray.storage import without_credentials
from singer_ray.storage.lease import Lease
from singer_ray.storage.s3 import Bucket
from tests.publishing.faults import make_package
from tests.servers import CREDENTIALS


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store of each kind."""
    if request.param == "folder":
        return Store(str(tmp_path / "target"))
    return Store(f"s3://{request.getfixturevalue('bucket')}/prefix/", request.getfixturevalue("server"), lease=2)


def keys(server: str, bucket: str) -> dict[str, Any]:
    listed = boto3.client("s3", endpoint_url=server, **CREDENTIALS).list_objects_v2(Bucket=bucket)
    return {entry["Key"]: entry for entry in listed.get("Contents", [])}


def test_a_package_arrives_whole_and_can_be_fetched(store: Store, package: Path, tmp_path: Path) -> None:
    done = store.put(package, "search/students/1-003")
    assert done.new
    assert done.address.endswith("/search/students/1-003")
    assert store.packages() == ["search/students/1-003"]
    manifest = store.verify("search/students/1-003")
    assert (
        manifest.size
        == done.size
        == sum(p.stat().st_size for p in package.rglob("*") if p.name != MANIFEST and p.is_file())
    )
    store.pull("search/students/1-003", tmp_path / "pulled")
    for name in (*manifest.files, MANIFEST):
        assert (tmp_path / "pulled" / name).read_bytes() == (package / name).read_bytes()
    with pytest.raises(UserError, match="is there already"):
        store.pull("search/students/1-003", tmp_path / "pulled")


def test_publishing_again_sends_nothing(server: str, bucket: str, package: Path) -> None:
    store = Store(f"s3://{bucket}", server)
    store.put(package, "x")
    before = keys(server, bucket)
    assert not store.put(package, "x").new
    assert {k: (e["ETag"], e["LastModified"]) for k, e in keys(server, bucket).items()} == {
        k: (e["ETag"], e["LastModified"]) for k, e in before.items()
    }
    assert set(before) == {f"x/{p.relative_to(package).as_posix()}" for p in package.rglob("*") if p.is_file()}


def test_another_package_is_not_overwritten_without_replace(store: Store, package: Path, tmp_path: Path) -> None:
    store.put(package, "x")
    other = tmp_path / "other"
    make_package(other, 1, large=False)
    (other / "README.md").unlink()
    write_manifest(other)
    with pytest.raises(UserError, match=r"holds another package .* Use --replace"):
        store.put(other, "x")
    assert store.verify("x") == Manifest.of(package)
    assert store.put(other, "x", replace=True).new
    assert store.verify("x") == Manifest.of(other)
    assert "x/README.md" not in store.folder.names()  # nothing of the earlier one is left


def test_the_same_student_with_another_card_stays_as_it_is(store: Store, package: Path) -> None:
    store.put(package, "x")
    (package / "README.md").write_text("another card")
    write_manifest(package)
    assert not store.put(package, "x").new


def test_without_a_manifest_there_is_no_package(store: Store, package: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(package, tmp_path / "bare")
    (bare / MANIFEST).unlink()
    with pytest.raises(UserError, match=r"has no MANIFEST\.json"):
        store.put(bare, "x")
    with pytest.raises(UserError, match="there is no whole package"):
        store.verify("x")
    assert store.packages() == []


def test_files_changed_after_the_manifest_are_named(store: Store, package: Path) -> None:
    (package / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(UserError, match=r"was changed after .* model.safetensors has 13 bytes, not 50000"):
        store.put(package, "x")
    (package / "model.safetensors").write_bytes(bytes(50_000))
    with pytest.raises(UserError, match=r"was changed after its MANIFEST"):
        store.put(package, "x")
    assert store.packages() == []


def test_what_was_spoilt_in_the_store_is_found(store: Store, package: Path) -> None:
    store.put(package, "x")
    content = bytearray((package / "result.json").read_bytes())
    content[100] ^= 1
    store.folder.write("x/result.json", bytes(content))
    with pytest.raises(UserError, match=r"x is not whole: result\.json has another content"):
        store.verify("x")


def test_two_exports_at_once_leave_one_whole_package(store: Store, tmp_path: Path) -> None:
    """Different students for one address: one wins, the other is told; whatever they do, nothing is mixed."""
    folders = [tmp_path / str(n) for n in range(4)]
    for n, folder in enumerate(folders):
        make_package(folder, n, large=False)
    said: list[str] = []

    def publish(folder: Path) -> None:
        try:
            Store(store.address, settings=store.settings).put(folder, "x")
        except UserError as error:
            said.append(str(error))

    threads = [threading.Thread(target=publish, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 3
    assert all("holds another package" in text or "holds files" in text for text in said)
    assert store.verify("x") in [Manifest.of(folder) for folder in folders]
    assert not [name for name in store.folder.names() if "claim" in name or "draft" in name]


def test_a_claim_that_a_failed_export_left_does_not_last(server: str, bucket: str, package: Path) -> None:
    """Of this very process: the next export need not wait, and one that finds the package there clears it."""
    store = Store(f"s3://{bucket}", server)
    s3 = Bucket(store.folder, ExportConfig(endpoint=server))
    left = Lease(s3, "x.claim", seconds=600).content
    s3.create("x.claim", left)
    begin = time.monotonic()
    assert store.put(package, "x").new
    assert time.monotonic() - begin < 60
    s3.create("x.claim", left)
    assert not store.put(package, "x").new
    assert "x.claim" not in keys(server, bucket)


def test_a_package_that_another_machine_writes_is_waited_for(server: str, bucket: str, package: Path) -> None:
    store = Store(f"s3://{bucket}", server, lease=1)
    other = Lease(Bucket(store.folder, ExportConfig(endpoint=server)), "x.claim", seconds=1)
    other.owner["machine"] = "another"
    with other, pytest.raises(UserError, match=r"/x is being written by another export, on another. Wait for it"):
        store.put(package, "x")
    assert store.packages() == []
    assert store.put(package, "x").new


def test_storage_class_encryption_and_tags_reach_the_objects(server: str, bucket: str, package: Path) -> None:
    settings = ExportConfig(endpoint=server, storage_class="STANDARD_IA", encryption="AES256", tags=("team=vision",))
    Store(f"s3://{bucket}", settings=settings).put(package, "x")
    client = boto3.client("s3", endpoint_url=server)
    for name in ("model.safetensors", MANIFEST):
        head = client.head_object(Bucket=bucket, Key=f"x/{name}")
        assert (head["StorageClass"], head["ServerSideEncryption"]) == ("STANDARD_IA", "AES256")
        tags = client.get_object_tagging(Bucket=bucket, Key=f"x/{name}")["TagSet"]
        assert tags == [{"Key": "team", "Value": "vision"}]


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_the_endpoint_of_the_environment_is_used(
    server: str, bucket: str, package: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, server)
    Store(f"s3://{bucket}/{variable}").put(package, "x")
    assert f"{variable}/x/{MANIFEST}" in keys(server, bucket)


def test_a_missing_bucket_is_named_before_anything_is_sent(server: str, bucket: str) -> None:
    with pytest.raises(UserError, match="there is no bucket 'nowhere'"):
        Store("s3://nowhere/prefix", endpoint=server)


def test_a_server_that_does_not_answer_is_named(bucket: str) -> None:
    with pytest.raises(UserError, match="cannot be reached"):
        Store(f"s3://{bucket}/x", endpoint="http://127.0.0.1:9")


@contextmanager
def refusing(status: int, code: str, message: str) -> Iterator[str]:
    """A server that answers every request as S3 does when it refuses; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            is_head = self.command == "HEAD"
            body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
            self.send_response(200 if is_head else status)  # the bucket is there; what is asked of it is refused
            self.send_header("Content-Length", str(0 if is_head else len(body)))
            self.end_headers()
            self.wfile.write(b"" if is_head else body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            pass

    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{found.server_port}"
    finally:
        found.shutdown()
        found.server_close()


@pytest.mark.parametrize(
    ("status", "code", "message", "advice"),
    [
        (403, "AccessDenied", "Access Denied", "allow s3:ListBucket"),
        (400, "ExpiredToken", "The provided token has expired.", "log in again"),
        (400, "AuthorizationHeaderMalformed", "the region 'us-east-1' is wrong; expecting 'eu-west-1'", "AWS_REGION"),
        (403, "InvalidAccessKeyId", "The key does not exist in our records.", "Check AWS_ACCESS_KEY_ID"),
    ],
)
def test_what_s3_refuses_is_explained(bucket: str, status: int, code: str, message: str, advice: str) -> None:
    with refusing(status, code, message) as address, pytest.raises(UserError, match=advice) as error:
        Store(f"s3://{bucket}/x", endpoint=address)
    assert str(error.value).count("\n") == 0


@pytest.mark.parametrize(
    ("address", "said"),
    [("ftp://host/x", "scheme 'ftp'"), ("s3:///prefix", "names no bucket"), ("/proc/version/x", "cannot be written")],
)
def test_addresses_that_cannot_be_are_refused(address: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Store(address)


def test_a_full_disk_leaves_nothing_half(package: Path, tmp_path: Path) -> None:
    """The process may write files of 10 kB, the weights have 50: what a full disk does, without filling one."""
    program = f"""
import resource, sys
from pathlib import Path
from singer_ray.errors import UserError
from singer_ray.publishing.store import Store
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    Store({str(tmp_path / "target")!r}).put(Path({str(package)!r}), "search/x")
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "could not be written" in done.stdout
    assert "Make room there" in done.stdout
    assert not [path for path in (tmp_path / "target").rglob("*") if path.is_file()]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "sealed").mkdir(mode=0o500)
    with pytest.raises(UserError, match="cannot be written"):
        Store(str(tmp_path / "sealed" / "target"))


def test_the_draft_of_a_killed_export_is_cleared(package: Path, tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = tmp_path / "target" / f".x.{dead.pid}-0123456789ab.draft"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    store = Store(str(tmp_path / "target"))
    assert store.packages() == []
    store.put(package, "x")
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["x"]


def test_foreign_files_are_not_taken_for_a_package(package: Path, tmp_path: Path) -> None:
    (tmp_path / "target" / "x").mkdir(parents=True)
    (tmp_path / "target" / "x" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds files, but no package"):
        Store(str(tmp_path / "target")).put(package, "x")
    assert (tmp_path / "target" / "x" / "thesis.tex").exists()


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside", "a/../../b"])
def test_a_manifest_that_leads_outside_is_refused(name: str) -> None:
    content = json.dumps({"format": 1, "files": {name: {"bytes": 1, "sha256": "0"}}}).encode()
    with pytest.raises(UserError, match="outside the package"):
        Manifest.parse(content, "MANIFEST.json")


def test_addresses_lose_their_credentials() -> None:
    text = without_credentials("study: postgresql://me:secret@host:5432/db and https://key@host/x")
    assert text == "study: postgresql://***@host:5432/db and https://***@host/x"
