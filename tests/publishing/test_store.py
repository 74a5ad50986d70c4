"""Packages in folders and in S3, the latter on a real server process."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
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
from singer_ray.storage import Folder, without_credentials
from singer_ray.storage.lease import Lease
from singer_ray.storage.s3 import Bucket
from tests.publishing.faults import FaultyProxy, make_package
from tests.servers import CREDENTIALS, ENVIRONMENT, s3_server


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
    s3 = Bucket(store.address, store.settings)
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
    other = Lease(Bucket(store.address, store.settings), "x.claim", seconds=1)
    other.owner["machine"] = "another"
    with other, pytest.raises(UserError, match=r"/x is being written by another export, on another. Wait for it"):
        store.put(package, "x")
    assert store.packages() == []
    assert store.put(package, "x").new


def test_storage_class_encryption_and_tags_reach_the_objects(server: str, bucket: str, package: Path) -> None:
    settings = ExportConfig(endpoint=server, storage_class="STANDARD_IA", encryption="AES256", tags=("team=vision",))
    Store(f"s3://{bucket}", settings=settings).put(package, "x")
    client = boto3.client("s3", endpoint_url=server)
    # The manifest is read at every look: it is not put away.
    for name, storage_class in (("model.safetensors", "STANDARD_IA"), (MANIFEST, "STANDARD")):
        head = client.head_object(Bucket=bucket, Key=f"x/{name}")
        assert (head.get("StorageClass", "STANDARD"), head["ServerSideEncryption"]) == (storage_class, "AES256")
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
            self.send_response(status)  # to HEAD without a reason
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


@pytest.fixture
def sealed_folder() -> Iterator[Path]:
    """A folder that this process may not write to: not even as root, who then goes by another name."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        (Path(made) / "sealed").mkdir(mode=0o555)
        root = os.geteuid() == 0
        if root:
            os.setresuid(65534, 65534, 0)
        try:
            yield Path(made) / "sealed"
        finally:
            if root:
                os.setresuid(0, 0, 0)


def test_a_read_only_folder_is_named(sealed_folder: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be written: .*sealed is no folder that may be written to"):
        Store(str(sealed_folder / "target"))


def test_what_cannot_be_fetched_into_is_named(package: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    store.put(package, "x")
    for target in ("/proc/version/y", "/proc/x/y"):
        with pytest.raises(UserError, match="could not be written"):
            store.pull("x", Path(target))


def test_the_draft_of_a_killed_export_is_cleared(package: Path, tmp_path: Path) -> None:
    program = f"""
import os
from pathlib import Path
from singer_ray.publishing.local_writer import drafting
with drafting(Path({str(tmp_path / "target" / "x")!r})) as draft:
    (draft / "model.safetensors").write_bytes(b"half")
    os._exit(1)
"""
    subprocess.run([sys.executable, "-c", program], check=False)
    (left,) = (tmp_path / "target").iterdir()
    machine = left.name.split(".")[2].partition("-")[0]
    another = left.with_name(left.name.replace(machine, "0" * 12))  # whether that one's process lives is not known here
    shutil.copytree(left, another)
    store = Store(str(tmp_path / "target"))
    assert store.packages() == []
    store.put(package, "x")
    assert sorted(path.name for path in (tmp_path / "target").iterdir()) == [another.name, "x"]


def test_a_replacement_that_was_cut_off_leaves_the_package_that_was_there(package: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "target"))
    store.put(package, "x")
    make_package(tmp_path / "other", 1, large=False)
    program = f"""
import os
from pathlib import Path
from singer_ray.publishing import local_writer
from singer_ray.publishing.store import Store
rename = Path.rename
def cut_off(self, target):
    if str(self).endswith(".draft"):
        os._exit(1)
    return rename(self, target)
Path.rename = cut_off
Store({store.address!r}).put(Path({str(tmp_path / "other")!r}), "x", replace=True)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 1
    assert not (tmp_path / "target" / "x").exists()
    assert not store.put(package, "x").new
    assert store.verify("x") == Manifest.of(package)
    assert store.put(tmp_path / "other", "x", replace=True).new
    assert store.verify("x") == Manifest.of(tmp_path / "other")
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["x"]


def test_foreign_files_are_not_taken_for_a_package(package: Path, tmp_path: Path) -> None:
    (tmp_path / "target" / "x").mkdir(parents=True)
    (tmp_path / "target" / "x" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds files, but no package"):
        Store(str(tmp_path / "target")).put(package, "x")
    assert (tmp_path / "target" / "x" / "thesis.tex").exists()


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside", "a/../../b", "", ".", "a//b", "a\0b", MANIFEST])
def test_a_manifest_that_leads_outside_is_refused(name: str) -> None:
    content = json.dumps({"format": 1, "files": {name: {"bytes": 1, "sha256": "0"}}}).encode()
    with pytest.raises(UserError, match="outside the package"):
        Manifest.parse(content, "MANIFEST.json")


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"format": 1, "files": {"a": {"bytes": 1e999, "sha256": "0"}}}'])
def test_a_broken_manifest_is_said_in_a_line(content: bytes) -> None:
    with pytest.raises(UserError, match="is no manifest"):
        Manifest.parse(content, "MANIFEST.json")


def test_what_another_version_wrote_is_not_written_over(store: Store, package: Path) -> None:
    store.put(package, "x")
    store.folder.write(f"x/{MANIFEST}", b'{"format": 2, "files": [{"name": "config.json"}]}')
    with pytest.raises(UserError, match=r"has the format 2, not 1. Use the singer_ray that wrote it"):
        store.put(package, "x")
    assert store.folder.read(f"x/{MANIFEST}") == b'{"format": 2, "files": [{"name": "config.json"}]}'


def test_replace_mends_a_package_that_was_spoilt(store: Store, package: Path) -> None:
    store.put(package, "x")
    content = bytearray((package / "model.safetensors").read_bytes())
    content[100] ^= 1
    store.folder.write("x/model.safetensors", bytes(content))
    with pytest.raises(UserError, match=r"Publish it again with --replace"):
        store.verify("x")
    assert store.put(package, "x", replace=True).new
    store.verify("x")


def test_what_was_spoilt_in_s3_is_seen_by_its_tag_and_sent_again(server: str, bucket: str, package: Path) -> None:
    store = Store(f"s3://{bucket}", server)
    store.put(package, "x")
    content = bytearray((package / "model.safetensors").read_bytes())
    content[100] ^= 1
    store.folder.write("x/model.safetensors", bytes(content))
    assert store.put(package, "x").new
    store.verify("x")


def test_a_replacement_that_fails_leaves_what_was_there(
    server: str, bucket: str, package: Path, tmp_path: Path
) -> None:
    Store(f"s3://{bucket}", server).put(package, "x")
    make_package(tmp_path / "other", 1, large=False)

    def fault(number: int, put: int | None, target: str) -> str | None:
        return "error_500" if target.startswith("PUT") and "model.safetensors" in target else None

    with FaultyProxy(server.removeprefix("http://"), fault) as proxy:
        settings = ExportConfig(endpoint=proxy.address, attempts=1)
        with pytest.raises(UserError, match="could not be written"):
            Store(f"s3://{bucket}", settings=settings).put(tmp_path / "other", "x", replace=True)
    store = Store(f"s3://{bucket}", server)
    assert store.verify("x") == Manifest.of(package)
    assert store.put(tmp_path / "other", "x", replace=True).new
    assert store.verify("x") == Manifest.of(tmp_path / "other")
    assert not [key for key in keys(server, bucket) if not key.startswith("x/")]


def test_foreign_files_in_s3_stay(server: str, bucket: str, package: Path) -> None:
    store = Store(f"s3://{bucket}", server)
    store.folder.write("x/thesis.tex", b"years of work")
    with pytest.raises(UserError, match=r"holds files, but no package \(thesis.tex\)"):
        store.put(package, "x")
    assert store.read("x/thesis.tex") == b"years of work"


def test_an_upload_whose_beginning_was_answered_in_vain_is_not_left(server: str, bucket: str, tmp_path: Path) -> None:
    make_package(tmp_path / "large", 0, large=True)
    lost: list[str] = []

    def fault(number: int, put: int | None, target: str) -> str | None:
        if target.startswith("POST") and "uploads" in target and not lost:
            lost.append(target)
            return "lost_answer"
        return None

    with FaultyProxy(server.removeprefix("http://"), fault) as proxy:
        Store(f"s3://{bucket}", settings=ExportConfig(endpoint=proxy.address)).put(tmp_path / "large", "x")
    assert lost
    client = boto3.client("s3", endpoint_url=server, **CREDENTIALS)
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")
    assert Store(f"s3://{bucket}", server).verify("x") == Manifest.of(tmp_path / "large")


def test_a_write_that_comes_late_changes_nothing(server: str, bucket: str, tmp_path: Path) -> None:
    """Of an export that lost its claim while its request was under way."""
    for seed in (0, 1):
        make_package(tmp_path / str(seed), seed, large=True)
    store = Store(f"s3://{bucket}", server)
    late = Bucket(f"s3://{bucket}/x", store.settings)
    before = late.list()
    store.put(tmp_path / "1", "x")
    for name in ("README.md", "model.safetensors"):
        assert name not in before
        assert late.put_file(name, tmp_path / "0" / name, over=None) is None
    assert store.verify("x") == Manifest.of(tmp_path / "1")
    client = boto3.client("s3", endpoint_url=server, **CREDENTIALS)
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")


def test_a_file_is_read_by_one_request(server: str, bucket: str) -> None:
    """Between two, another may come in its place."""
    with FaultyProxy(server.removeprefix("http://")) as proxy:
        folder = Folder(f"s3://{bucket}", proxy.address)
        folder.write("x", b"content")
        for read in (folder.read, folder.digest):
            before = proxy.requests
            read("x")
            assert proxy.requests == before + 1


def test_two_exports_at_once_to_a_server_that_knows_no_conditions(tmp_path: Path, monkeypatch: Any) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with s3_server(conditions=False) as careless:
        boto3.client("s3", endpoint_url=careless).create_bucket(Bucket="careless")
        test_two_exports_at_once_leave_one_whole_package(Store("s3://careless", careless, lease=2), tmp_path)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("postgresql://me:pa/ss@host:5432/db", "postgresql://***@host:5432/db"),
        ("mysql://me:p@ss'w@host/db", "mysql://***@host/db"),
        ('{"a": "redis://:secret@h", "b": "x@y"}', '{"a": "redis://***@h", "b": "x@y"}'),
        ("https://h/o?X-Amz-Signature=abc&size=3", "https://h/o?X-Amz-Signature=***&size=3"),
        ("postgresql://h/db?user=me&password=secret", "postgresql://h/db?user=me&password=***"),
        ("s3://bucket/a@b, http://localhost:8265", "s3://bucket/a@b, http://localhost:8265"),
    ],
)
def test_addresses_lose_their_secrets(text: str, cleaned: str) -> None:
    assert without_credentials(text) == cleaned


def test_addresses_lose_their_credentials() -> None:
    text = without_credentials("study: postgresql://me:secret@host:5432/db and https://key@host/x")
    assert text == "study: postgresql://***@host:5432/db and https://***@host/x"
