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

from singer_ray.storage import tags
from singer_ray.storage.s3_send import AT_A_TIME, send, send_parts
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


def test_a_file_of_many_parts_is_never_in_memory_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tags, "PART", 1 << 10)

    class Counted(io.BytesIO):
        reads = 0

        def read(self, size: int | None = -1) -> bytes:
            self.reads += 1
            return super().read(size)

    class Slow:
        """Takes parts more slowly than they are read and hashed; notes how many were read and not taken."""

        def __init__(self) -> None:
            self.taken, self.most, self.lock = 0, 0, threading.Lock()

        def create_multipart_upload(self, **request: Any) -> Any:
            return {"UploadId": "1"}

        def upload_part(self, **request: Any) -> Any:
            time.sleep(0.005)
            with self.lock:
                self.most = max(self.most, file.reads - self.taken)
                self.taken += 1
            return {"ETag": f'"{tags.md5_of(request["Body"])}"'}

        def complete_multipart_upload(self, **request: Any) -> Any:
            assert [part["PartNumber"] for part in request["MultipartUpload"]["Parts"]] == list(range(1, 201))
            return {"ETag": '"tag"'}

    content = random.Random(0).randbytes(200 << 10)
    file, slow = Counted(content), Slow()
    sent = send_parts(slow, KEY, file, len(content), {}, {}, 2)
    assert sent is not None
    assert sent.sha256 == hashlib.sha256(content).hexdigest()
    assert slow.most <= 2 * AT_A_TIME + AT_A_TIME + 1  # those that wait or are sent, and what is counted late
