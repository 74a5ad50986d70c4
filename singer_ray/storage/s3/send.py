"""Uploads to S3 in one request or in parts, under a condition and with checksums of what should arrive."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

from singer_ray.storage.protocol import Sent
from singer_ray.storage.s3.tags import md5_of, part_size, tag_of_parts

AT_A_TIME = 10
"""Parts that are sent at the same time, as many as boto3's transfer manager sends."""
UNKNOWN = ("NotImplemented", "MethodNotAllowed", "501", "405")
"""What smaller servers answer to a request that they do not support."""
ABSENT = ("NoSuchKey", "404", "NotFound")
REFUSED = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
"""What S3 answers when a condition does not hold."""
SPOILT = ("BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch")
"""What it answers when a content does not match its checksum."""
FAILED = (ClientError, BotoCoreError, Boto3Error, OSError)


def send(
    client: Any, request: Mapping[str, Any], content: bytes, condition: Mapping[str, str], tries: int
) -> Sent | None:
    """Sends a content in one request. None when the condition does not hold; raises what boto3 raises."""
    digest = hashlib.sha256(content)
    whole = {
        **request,
        "Body": content,
        "ChecksumSHA256": base64.b64encode(digest.digest()).decode(),
        "Metadata": {"sha256": digest.hexdigest()},
    }
    answer = _under_condition(lambda **given: _unspoilt(client.put_object, tries, **given), whole, condition)
    return None if answer is None else Sent(answer["ETag"].strip('"'), md5_of(content), digest.hexdigest())


def send_parts(
    client: Any,
    key: Mapping[str, str],
    file: IO[bytes],
    size: int,
    extra: Mapping[str, Any],
    condition: Mapping[str, str],
    tries: int,
) -> Sent | None:
    """Sends a file in parts, reading each once. boto3's own transfer manager does not support conditions.

    A separate thread hashes the parts. It lags behind as far as memory allows, and catches up while the server
    assembles them: on a fast connection, hashing and sending would compete for the processor. Returns and raises as
    `send` does.
    """
    digest, step = hashlib.sha256(), part_size(size)
    unsent, unhashed = threading.Semaphore(2 * AT_A_TIME), threading.Semaphore(2 * AT_A_TIME)
    hash_now = threading.Event()

    def send_part(number: int, content: bytes) -> dict[str, Any]:
        # In a header, not in a trailer: all servers can read such a request, and good ones check it.
        check = base64.b64encode(zlib.crc32(content).to_bytes(4)).decode()
        request = {**key, "UploadId": upload, "PartNumber": number, "Body": content, "ChecksumCRC32": check}
        try:
            answer = _unspoilt(client.upload_part, tries, **request)
        finally:
            unsent.release()
        heeded = {"ChecksumCRC32": check} if "ChecksumCRC32" in answer else {}
        return {"PartNumber": number, "ETag": answer["ETag"], **heeded}

    def hashed(content: bytes) -> str:
        hash_now.wait()
        try:
            digest.update(content)
            return md5_of(content)
        finally:
            unhashed.release()

    upload = client.create_multipart_upload(**key, **extra, ChecksumAlgorithm="CRC32")["UploadId"]
    with ThreadPoolExecutor(1) as hasher:
        try:
            with ThreadPoolExecutor(AT_A_TIME) as pool:
                sending: list[Future[dict[str, Any]]] = []
                own: list[Future[str]] = []
                while content := file.read(step):
                    unsent.acquire()  # bounds the parts in memory
                    if not unhashed.acquire(blocking=False):
                        hash_now.set()
                        unhashed.acquire()
                    sending.append(pool.submit(send_part, len(sending) + 1, content))
                    own.append(hasher.submit(hashed, content))
                sent = [part.result() for part in sending]
            hash_now.set()
            request = {**key, "UploadId": upload, "MultipartUpload": {"Parts": sent}}
            answer = _under_condition(client.complete_multipart_upload, request, condition)
        except BaseException:
            with contextlib.suppress(*FAILED):
                client.abort_multipart_upload(**key, UploadId=upload)
            raise
        finally:
            hash_now.set()
        if answer is None:
            with contextlib.suppress(*FAILED):  # already gone when only the answer was lost
                client.abort_multipart_upload(**key, UploadId=upload)
            return None
        tag = tag_of_parts([part.result() for part in own])
    return Sent(answer["ETag"].strip('"'), tag, digest.hexdigest())


def code_of(error: ClientError) -> str:
    """The server's name for what went wrong."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _unspoilt(call: Callable[..., Any], tries: int, **request: Any) -> Any:
    """The answer to an upload, which is sent again when the server says that it was damaged in transit."""
    for _ in range(tries - 1):
        try:
            return call(**request)
        except ClientError as error:
            if code_of(error) not in SPOILT:
                raise
    return call(**request)


def _under_condition(call: Callable[..., Any], request: Mapping[str, Any], condition: Mapping[str, str]) -> Any:
    """The server's answer; None when the condition does not hold."""
    try:
        return call(**request, **condition)
    except ClientError as error:
        code = code_of(error)
        if condition and (code in REFUSED or code in ABSENT):  # absent: IfMatch of what is gone
            return None
        if condition and code in UNKNOWN:  # an older server: the caller reads back
            return call(**request)
        raise
