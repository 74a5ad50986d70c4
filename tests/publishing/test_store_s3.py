"""Packages in S3, on a real server process: claims, conditions, what the server refuses."""

from __future__ import annotations

import http.server
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
from singer_ray.layout import MANIFEST
from singer_ray.publishing.packages.manifest import Manifest
from singer_ray.publishing.packages.store import Store
from singer_ray.storage import Folder
from singer_ray.storage.lease import Lease
from singer_ray.storage.protocol import ServerStore
from tests.publishing.faults import FaultyProxy, make_package
from tests.servers import CREDENTIALS


def keys(server: str, bucket: str) -> dict[str, Any]:
    listed = boto3.client("s3", endpoint_url=server, **CREDENTIALS).list_objects_v2(Bucket=bucket)
    return {entry["Key"]: entry for entry in listed.get("Contents", [])}


def test_publishing_again_sends_nothing(server: str, bucket: str, package: Path) -> None:
    store = Store(f"s3://{bucket}", server)
    store.put(package, "x")
    before = keys(server, bucket)
    assert not store.put(package, "x").new
    assert {k: (e["ETag"], e["LastModified"]) for k, e in keys(server, bucket).items()} == {
        k: (e["ETag"], e["LastModified"]) for k, e in before.items()
    }
    assert set(before) == {f"x/{p.relative_to(package).as_posix()}" for p in package.rglob("*") if p.is_file()}


def test_a_claim_that_a_failed_export_left_does_not_last(server: str, bucket: str, package: Path) -> None:
    """Of this very process: the next export need not wait, and one that finds the package there clears it."""
    store = Store(f"s3://{bucket}", server)
    s3 = store.folder.store
    left = Lease(s3, "x.claim", seconds=600).content
    s3.create("x.claim", left)
    begin = time.monotonic()
    assert store.put(package, "x").new
    assert time.monotonic() - begin < 60
    s3.create("x.claim", left)
    assert not store.put(package, "x").new
    assert "x.claim" not in keys(server, bucket)


@pytest.mark.slow
def test_a_package_that_another_machine_writes_is_waited_for(server: str, bucket: str, package: Path) -> None:
    store = Store(f"s3://{bucket}", server, lease=1)
    other = Lease(store.folder.store, "x.claim", seconds=1)
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


def test_what_was_spoilt_in_s3_is_seen_by_its_tag_and_sent_again(server: str, bucket: str, package: Path) -> None:
    store = Store(f"s3://{bucket}", server)
    store.put(package, "x")
    content = bytearray((package / "model.safetensors").read_bytes())
    content[100] ^= 1
    store.folder.write("x/model.safetensors", bytes(content))
    assert store.put(package, "x").new
    store.verify("x")


@pytest.mark.slow
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
    with pytest.raises(UserError, match=r"contains files but no package \(thesis.tex\)"):
        store.put(package, "x")
    assert store.read("x/thesis.tex") == b"years of work"


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_write_that_comes_late_changes_nothing(server: str, bucket: str, tmp_path: Path) -> None:
    """Of an export that lost its claim while its request was under way."""
    for seed in (0, 1):
        make_package(tmp_path / str(seed), seed, large=True)
    store = Store(f"s3://{bucket}", server)
    late = store.folder.below("x").store
    assert isinstance(late, ServerStore)
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
