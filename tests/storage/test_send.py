"""Contents on their way to a server that checks them, or does not."""

from __future__ import annotations

import base64
import hashlib
import io
import random
import threading
import time
import zlib
from collections.abc import Mapping
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from singer_ray.storage.s3 import tags
from singer_ray.storage.s3.send import AT_A_TIME, send, send_parts
from tests.servers import CREDENTIALS, s3_server

KEY = {"Bucket": "bucket", "Key": "file"}


class Client:
    """boto3's, on a line that spoils the first try of each content; the server may refuse what has been spoilt."""

    def __init__(self, inner: Any, *, checks: bool) -> None:
        self.inner, self.checks, self.seen = inner, checks, set[object]()
        self.lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def put_object(self, **request: Any) -> Any:
        digest = base64.b64encode(hashlib.sha256(self._arriving(request)).digest()).decode()
        return self._stored(self.inner.put_object, request, digest == request["ChecksumSHA256"])

    def upload_part(self, **request: Any) -> Any:
        check = base64.b64encode(zlib.crc32(self._arriving(request)).to_bytes(4)).decode()
        return self._stored(self.inner.upload_part, request, check == request["ChecksumCRC32"])

    def _arriving(self, request: dict[str, Any]) -> bytes:
        content: bytes = request["Body"]
        with self.lock:
            first = request.get("PartNumber") not in self.seen
            self.seen.add(request.get("PartNumber"))
        return b"?" + content[1:] if first else content

    def _stored(self, call: Any, request: Mapping[str, Any], fits: bool) -> Any:
        if fits:
            return call(**request)
        if self.checks:
            raise ClientError({"Error": {"Code": "BadDigest"}}, "Put")
        spoilt = {name: value for name, value in request.items() if not name.startswith("Checksum")}
        return call(**{**spoilt, "Body": b"?" + request["Body"][1:]})


@pytest.fixture(scope="module")
def inner() -> Any:
    with s3_server() as server:
        client = boto3.client("s3", endpoint_url=server, **CREDENTIALS)
        client.create_bucket(Bucket="bucket")
        yield client


def stored(inner: Any) -> bytes:
    content: bytes = inner.get_object(**KEY)["Body"].read()
    return content


def test_what_the_server_refuses_as_spoilt_is_sent_again(inner: Any) -> None:
    content = b"0123456789"
    sent = send(Client(inner, checks=True), KEY, content, {}, 2)
    assert sent is not None
    assert sent.confirmed
    assert stored(inner) == content
    with pytest.raises(ClientError, match="BadDigest"):
        send(Client(inner, checks=True), KEY, content, {}, 1)


def test_parts_that_the_server_refuses_as_spoilt_are_sent_again(inner: Any) -> None:
    content = bytes(range(256)) * (tags.PART // 256) * 2 + b"end"
    sent = send_parts(Client(inner, checks=True), KEY, io.BytesIO(content), len(content), {}, {}, 2)
    assert sent is not None
    assert sent.confirmed
    assert stored(inner) == content
    assert sent.sha256 == hashlib.sha256(content).hexdigest()


def test_what_a_server_takes_spoilt_is_not_confirmed(inner: Any) -> None:
    content = bytes(range(256)) * (tags.PART // 256) * 2
    sent = send_parts(Client(inner, checks=False), KEY, io.BytesIO(content), len(content), {}, {}, 2)
    assert sent is not None
    assert not sent.confirmed
    small = send(Client(inner, checks=False), KEY, b"small", {}, 2)
    assert small is not None
    assert not small.confirmed


def test_a_fault_ends_the_upload_and_leaves_no_parts(inner: Any) -> None:
    class Broken(Client):
        def upload_part(self, **request: Any) -> Any:
            raise ClientError({"Error": {"Code": "InternalError"}}, "UploadPart")

    content = bytes(2 * tags.PART)
    with pytest.raises(ClientError, match="InternalError"):
        send_parts(Broken(inner, checks=True), KEY, io.BytesIO(content), len(content), {}, {}, 2)
    assert not inner.list_multipart_uploads(Bucket="bucket").get("Uploads")


class Slow:
    """A server that takes its time for a part; notes how many were read and neither taken nor hashed, at most."""

    def __init__(self, content: bytes, seconds: float) -> None:
        self.file, self.seconds = io.BytesIO(content), seconds
        self.read_parts, self.done, self.most, self.lock = 0, 0, 0, threading.Lock()

    def read(self, size: int) -> bytes:
        self.read_parts += 1
        return self.file.read(size)

    def finished(self, seconds: float) -> None:
        time.sleep(seconds)
        with self.lock:
            self.most = max(self.most, self.read_parts - self.done)
            self.done += 1

    def create_multipart_upload(self, **request: Any) -> Any:
        return {"UploadId": "1"}

    def upload_part(self, **request: Any) -> Any:
        if self.seconds:
            self.finished(self.seconds)
        return {"ETag": '"part"'}

    def complete_multipart_upload(self, **request: Any) -> Any:
        assert [part["PartNumber"] for part in request["MultipartUpload"]["Parts"]] == list(range(1, 201))
        return {"ETag": '"tag"'}


@pytest.mark.parametrize("slow", ["line", "processor"])
def test_a_file_of_many_parts_is_never_in_memory_as_a_whole(slow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tags, "PART", 1 << 10)
    content = random.Random(0).randbytes(200 << 10)
    server = Slow(content, 0.005 if slow == "line" else 0.0)
    if slow == "processor":

        def hashed(content: bytes) -> str:
            server.finished(0.002)
            return tags.md5_of(content)

        monkeypatch.setattr("singer_ray.storage.s3.send.md5_of", hashed)
    sent = send_parts(server, KEY, server, len(content), {}, {}, 2)  # type: ignore[arg-type]
    assert sent is not None
    assert sent.sha256 == hashlib.sha256(content).hexdigest()
    assert server.done == 200
    assert server.most <= 2 * AT_A_TIME + 1  # and the one that was read and waits for room
