"""Objects below one s3:// address, through boto3.

Not through pyarrow.fs: it reads by two requests, between which an object may be replaced (half of one and half of the
other was seen), it asks by HEAD, to which S3 answers without a reason, and it knows neither conditions nor encryption.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import email.utils
import functools
import hashlib
import io
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlencode, urlsplit

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config as ClientConfig
from botocore.exceptions import BotoCoreError, ClientError

from singer_ray.errors import UserError
from singer_ray.storage.explain import reason
from singer_ray.storage.lease import Seen
from singer_ray.storage.s3_settings import S3Settings, endpoint_of
from singer_ray.storage.tags import MULTIPART, md5_of, part_size, tag_of_parts

AT_A_TIME = 8
"""Parts that are sent at a time."""
CHUNK = 1 << 22
_UNKNOWN = ("NotImplemented", "MethodNotAllowed", "501", "405")
"""What smaller servers answer to a request that they do not know."""
_ABSENT = ("NoSuchKey", "404", "NotFound")
_REFUSED = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
"""What S3 answers when a condition does not hold."""
_FAILED = (ClientError, BotoCoreError, Boto3Error, OSError)
_FEW = 3
"""Tries of the first request to an address: a wrong one is to be told soon."""
_MAKING = threading.Lock()
"""boto3 makes one client at a time."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Object:
    """What a listing says of an object."""

    size: int
    """Bytes."""
    tag: str
    """Its ETag: a hash of the content on most servers, see `tag_of`."""


@dataclass(frozen=True)
class Sent:
    """A file that a server has taken."""

    tag: str
    """The ETag that it was given."""
    own: str
    """The one that its content should have, where tags are hashes."""
    sha256: str
    """Of what was sent."""

    @property
    def confirmed(self) -> bool:
        """Whether the tag proves that the content has come as it was sent."""
        return self.tag == self.own


class Bucket:
    """Reads and writes below s3://BUCKET/PREFIX; names are relative to it.

    Requests are repeated with backoff; UserError is raised when that does not help. Credentials come from AWS's
    standard chain. It may be used by several threads, and be sent to other processes.
    """

    def __init__(self, address: str, settings: S3Settings) -> None:
        """Raises UserError for an address without a bucket, or an endpoint without a scheme."""
        parts = urlsplit(address)
        if not parts.netloc:
            raise UserError(f"{address!r} names no bucket. Allowed: s3://BUCKET/PREFIX.")
        self.address, self.settings = address.rstrip("/"), settings
        self.name, self.prefix = parts.netloc, parts.path.strip("/")
        # The environment is asked here: elsewhere in the cluster it may say nothing.
        self.endpoint = endpoint_of(settings.endpoint)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "client"}

    @functools.cached_property
    def client(self) -> Any:
        """boto3's client; a connection stays in the process that made it."""
        return self._client(self.settings.attempts)

    def below(self, name: str) -> Bucket:
        """The same for the folder `name` in it."""
        inner = object.__new__(Bucket)
        inner.__dict__.update(self.__dict__)
        inner.address, inner.prefix = f"{self.address}/{name}", self._key(name)
        return inner

    def check(self) -> None:
        """Raises UserError when it cannot be listed: no such bucket, no permission, wrong region, expired token."""
        with self._explained(" cannot be reached"):
            try:
                self._client(_FEW).list_objects_v2(Bucket=self.name, Prefix=self._under(""), Delimiter="/")
            except ClientError as error:
                if _code(error) == "NoSuchBucket":
                    raise UserError(
                        f"{self.address}: there is no bucket {self.name!r}. Make it first: aws s3 mb s3://{self.name}"
                    ) from error
                raise

    def get(self, name: str) -> bytes | None:
        """The content of an object, None when there is none; read again where it was spoilt on its way."""
        found = self._get(name)
        return None if found is None else found[0]

    def look(self, name: str) -> Seen | None:
        """A small file with its tag and age, in one request; None when there is none."""
        found = self._get(name)
        if found is None:
            return None
        content, answer = found
        now = email.utils.parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        age = (now.astimezone(datetime.UTC) - answer["LastModified"]).total_seconds()
        return Seen(content, answer["ETag"].strip('"'), age)

    def stream(self, name: str, take: Callable[[bytes], object] = lambda chunk: None) -> tuple[int, str] | None:
        """Size and SHA-256 of an object, read once in pieces that `take` gets; None when there is none."""
        with self._explained(f"/{name} cannot be read"):
            try:
                body = self.client.get_object(Bucket=self.name, Key=self._key(name))["Body"]
            except ClientError as error:
                if _code(error) in _ABSENT:
                    return None
                raise
            size, digest = 0, hashlib.sha256()
            while chunk := body.read(CHUNK):
                digest.update(chunk)
                take(chunk)
                size += len(chunk)
            return size, digest.hexdigest()

    def list(self, below: str = "") -> dict[str, Object]:
        """All objects in it, or in its folder `below`, by their names in it."""
        with self._explained(" cannot be listed"):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=self._under(below))
            found = [entry for page in pages for entry in page.get("Contents", [])]
        start = len(self._under(""))
        return {e["Key"][start:]: Object(e["Size"], e["ETag"].strip('"')) for e in found if not e["Key"].endswith("/")}

    def folders(self, below: str = "") -> Sequence[str]:
        """The names of the folders right in it, or in its folder `below`."""
        with self._explained(" cannot be listed"):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.name, Prefix=self._under(below), Delimiter="/"
            )
            found = [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", [])]
        start = len(self._under(""))
        return sorted(prefix[start:].rstrip("/") for prefix in found)

    def put(self, name: str, content: bytes) -> None:
        """Writes an object over whatever is there."""
        if len(content) >= MULTIPART:
            with self._explained(f"/{name} could not be written"):
                self._put_parts(name, io.BytesIO(content), len(content), self._extra(), {})
        else:
            self._put(name, content, self._extra(), {})

    def put_file(self, name: str, path: Path, *, over: str | None) -> Sent | None:
        """Sends a file of a package over the object of the tag `over` (None: where there is none).

        None when something else is there: the condition fences late writes of a process that has lost its claim.
        """
        condition = {"IfNoneMatch": "*"} if over is None else {"IfMatch": over}
        extra = self._extra(tagged=True, stored=True)
        with self._explained(f"/{name} could not be written"), path.open("rb") as file:
            size = path.stat().st_size
            if size < MULTIPART:
                return self._put(name, file.read(), extra, condition)
            return self._put_parts(name, file, size, extra, condition)

    def create(self, name: str, content: bytes, *, tagged: bool = False) -> bool:
        """Writes a small file unless there is one; whether it did."""
        return self._put(name, content, self._extra(tagged=tagged), {"IfNoneMatch": "*"}) is not None

    def swap(self, name: str, content: bytes, tag: str) -> bool:
        """Writes a small file over that of `tag`, unless it has changed; whether it did."""
        return self._put(name, content, self._extra(), {"IfMatch": tag}) is not None

    def copy(self, name: str, target: str) -> None:
        """Copies an object within the bucket, by the server itself."""
        with self._explained(f"/{target} could not be written"):
            extra = self._extra(tagged=True, stored=True)
            extra |= {"TaggingDirective": "REPLACE"} if "Tagging" in extra else {}
            source = {"Bucket": self.name, "Key": self._key(name)}
            self.client.copy(source, self.name, self._key(target), ExtraArgs=extra)

    def delete(self, names: Sequence[str], tag: str | None = None) -> None:
        """Removes objects, as far as they are there; with `tag` unless they have changed."""
        condition = {} if tag is None else {"IfMatch": tag}
        with self._explained(" could not be cleared"):
            for name in names:
                key = {"Bucket": self.name, "Key": self._key(name)}
                try:
                    self.client.delete_object(**key, **condition)
                except ClientError as error:
                    if condition and _code(error) in _UNKNOWN:
                        self.client.delete_object(**key)
                    elif _code(error) not in (*_REFUSED, *_ABSENT):
                        raise

    def abort_uploads(self, below: str = "") -> int:
        """Ends uploads in parts that were left unfinished in it, or in its folder `below`; returns how many."""
        prefix, found = self._under(below), 0
        with self._explained(" could not be cleared"):
            try:
                pages = list(self.client.get_paginator("list_multipart_uploads").paginate(
                    Bucket=self.name, Prefix=prefix
                ))  # fmt: skip
            except ClientError as error:
                if _code(error) in (*_UNKNOWN, "AccessDenied"):  # who may not look has to leave them
                    return 0
                raise
            for upload in (upload for page in pages for upload in page.get("Uploads", [])):
                if upload["Key"].startswith(prefix):  # not every server heeds the prefix
                    self.client.abort_multipart_upload(Bucket=self.name, Key=upload["Key"], UploadId=upload["UploadId"])
                    found += 1
        return found

    def _client(self, attempts: int) -> Any:
        timeout = self.settings.timeout
        config = ClientConfig(
            retries={"mode": "standard", "total_max_attempts": attempts},
            connect_timeout=min(10.0, timeout), read_timeout=timeout, max_pool_connections=16, tcp_keepalive=True,
            response_checksum_validation="when_required",  # whatever is read is hashed by its reader
            # Checksums behind a streamed body are more than older S3-compatible servers know.
            request_checksum_calculation="when_required" if self.endpoint else "when_supported",
            s3={"addressing_style": "path"} if self.endpoint else None,
        )  # fmt: skip
        region = os.environ.get("AWS_REGION")  # which AWS's other tools heed; boto3 alone does not
        with _MAKING, self._explained(" cannot be reached"):
            return boto3.client("s3", endpoint_url=self.endpoint, region_name=region, config=config)

    def _get(self, name: str) -> tuple[bytes, Mapping[str, Any]] | None:
        """Content and answer, read again where the content did not come or was spoilt on its way."""
        before: bytes | None = None
        fault: Exception | None = None
        for attempt in range(self.settings.attempts):
            time.sleep(0.1 * attempt)
            with self._explained(f"/{name} cannot be read"):
                try:
                    answer = self.client.get_object(Bucket=self.name, Key=self._key(name))
                except ClientError as error:
                    if _code(error) in _ABSENT:
                        return None
                    raise
            try:
                content = answer["Body"].read()
            except _FAILED as error:
                fault = error
                continue
            tag = answer["ETag"].strip('"')
            # Where the tag is no MD5 of the content, two reads that agree must do.
            if tag == md5_of(content) or content == before or "-" in tag or _is_keyed(answer):
                return content, answer
            before = content
        why = reason(fault) if fault else "it comes differently each time."
        raise UserError(f"{self.address}/{name} cannot be read: {why} Check the connection.")

    def _put(self, name: str, content: bytes, extra: Mapping[str, Any], condition: Mapping[str, str]) -> Sent | None:
        digest = hashlib.sha256(content)
        request = {
            "Bucket": self.name, "Key": self._key(name), "Body": content, **extra,
            "ChecksumSHA256": base64.b64encode(digest.digest()).decode(), "Metadata": {"sha256": digest.hexdigest()},
        }  # fmt: skip
        with self._explained(f"/{name} could not be written"):
            answer = _under_condition(self.client.put_object, request, condition)
        return None if answer is None else Sent(answer["ETag"].strip('"'), md5_of(content), digest.hexdigest())

    def _put_parts(
        self, name: str, file: IO[bytes], size: int, extra: Mapping[str, Any], condition: Mapping[str, str]
    ) -> Sent | None:
        """In parts, of which each is read, hashed and sent once. boto3's own transfer manager knows no conditions."""
        key = {"Bucket": self.name, "Key": self._key(name)}
        digest, step, room = hashlib.sha256(), part_size(size), threading.Semaphore(2 * AT_A_TIME)

        def send(number: int, content: bytes) -> tuple[dict[str, Any], str]:
            try:
                own = md5_of(content)
                for _ in range(self.settings.attempts):
                    answer = self.client.upload_part(**key, UploadId=upload, PartNumber=number, Body=content)
                    if answer["ETag"].strip('"') == own:
                        break  # else it was spoilt on its way, or the tag is no MD5: the whole tells
                return {"PartNumber": number, "ETag": answer["ETag"]}, own
            finally:
                room.release()

        upload = self.client.create_multipart_upload(**key, **extra)["UploadId"]
        try:
            with ThreadPoolExecutor(AT_A_TIME) as pool:
                sending: list[Future[tuple[dict[str, Any], str]]] = []
                while content := file.read(step):
                    room.acquire()  # so many parts in memory, and no more
                    sending.append(pool.submit(send, len(sending) + 1, content))
                    digest.update(content)
                sent = [part.result() for part in sending]
            request = {**key, "UploadId": upload, "MultipartUpload": {"Parts": [part for part, _ in sent]}}
            answer = _under_condition(self.client.complete_multipart_upload, request, condition)
        except BaseException:
            with contextlib.suppress(*_FAILED):
                self.client.abort_multipart_upload(**key, UploadId=upload)
            raise
        if answer is None:
            with contextlib.suppress(*_FAILED):  # gone already, where the answer to its completion was lost
                self.client.abort_multipart_upload(**key, UploadId=upload)
            return None
        return Sent(answer["ETag"].strip('"'), tag_of_parts([own for _, own in sent]), digest.hexdigest())

    def _key(self, name: str) -> str:
        return "/".join(part for part in (self.prefix, name) if part)

    def _under(self, below: str) -> str:
        return f"{self._key(below)}/".lstrip("/")

    def _extra(self, *, tagged: bool = False, stored: bool = False) -> dict[str, Any]:
        """Tags are for packages, the storage class for their contents: what is read at every look stays at hand."""
        settings = self.settings
        given: dict[str, Any] = {"ServerSideEncryption": settings.encryption, "SSEKMSKeyId": settings.kms_key}
        if tagged:
            given["Tagging"] = urlencode({k: v for k, _, v in (tag.partition("=") for tag in settings.tags)}) or None
        if stored:
            given["StorageClass"] = settings.storage_class
        return {name: value for name, value in given.items() if value is not None}

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except _FAILED as error:
            raise UserError(f"{self.address}{what}: {reason(error)}") from error


def with_retries(attempts: int, act: Callable[[], Result], *, pause: float = 0.5) -> Result:
    """What `act` returns; a UserError makes it try again, up to `attempts` times with growing pauses."""
    for attempt in range(attempts):
        try:
            return act()
        except UserError:
            if attempt == attempts - 1:
                raise
            time.sleep(min(20.0, pause * 2**attempt))
    raise AssertionError("attempts is at least 1")


def _under_condition(call: Callable[..., Any], request: Mapping[str, Any], condition: Mapping[str, str]) -> Any:
    """The server's answer; None when the condition does not hold."""
    try:
        return call(**request, **condition)
    except ClientError as error:
        code = _code(error)
        if condition and (code in _REFUSED or code in _ABSENT):  # absent: IfMatch of what is gone
            return None
        if condition and code in _UNKNOWN:  # an older server: the caller reads back
            return call(**request)
        raise


def _is_keyed(answer: Mapping[str, Any]) -> bool:
    return str(answer.get("ServerSideEncryption", "")).startswith("aws:kms") or "SSECustomerAlgorithm" in answer


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
