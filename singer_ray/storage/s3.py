"""What S3 can and pyarrow.fs cannot: conditional and multipart uploads, encryption, storage classes, tags."""

from __future__ import annotations

import base64
import datetime
import email.utils
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlencode

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config as ClientConfig
from botocore.exceptions import BotoCoreError, ClientError

from singer_ray.errors import UserError
from singer_ray.storage.folder import Folder, endpoint_of, hashed, reason
from singer_ray.storage.lease import Seen

MIB = 1 << 20
MULTIPART = 16 * MIB
"""Files from this size on are sent in parts of 8 MiB, several at a time."""
_UNKNOWN = ("NotImplemented", "MethodNotAllowed", "501", "405")
"""What smaller servers answer to a request that they do not know."""
_FAILED = (ClientError, BotoCoreError, Boto3Error, OSError)
Result = TypeVar("Result")


class S3Settings(Protocol):
    """How to write to S3; the configuration's export block is such."""

    @property
    def endpoint(self) -> str | None: ...
    @property
    def storage_class(self) -> str | None: ...
    @property
    def encryption(self) -> str | None: ...
    @property
    def kms_key(self) -> str | None: ...
    @property
    def tags(self) -> Sequence[str]: ...
    @property
    def attempts(self) -> int: ...
    @property
    def timeout(self) -> float: ...


class Bucket:
    """Writes below one s3:// address. Requests are repeated with backoff; UserError is raised when that does not help.

    Credentials come from AWS's standard chain. `folder` reads what this writes.
    """

    def __init__(self, folder: Folder, settings: S3Settings) -> None:
        self.folder, self.settings = folder, settings
        self.name, _, self.prefix = folder.root.partition("/")

    @functools.cached_property
    def client(self) -> Any:
        """boto3's client; it may be used by several threads."""
        endpoint = endpoint_of(self.settings.endpoint)
        timeout = self.settings.timeout
        return boto3.client(
            "s3", endpoint_url=endpoint,
            config=ClientConfig(
                retries={"mode": "standard", "total_max_attempts": self.settings.attempts},
                connect_timeout=min(10.0, timeout), read_timeout=timeout, max_pool_connections=16, tcp_keepalive=True,
                response_checksum_validation="when_required",  # whatever is read is hashed by its reader
                s3={"addressing_style": "path"} if endpoint else None,
            ),
        )  # fmt: skip

    def check(self) -> None:
        """Raises UserError when the bucket cannot be listed: none there, no permission, wrong region, expired token."""
        with self._explained(" cannot be reached"):
            self.client.list_objects_v2(Bucket=self.name, Prefix=f"{self.prefix}/".lstrip("/"), Delimiter="/")

    def put(self, name: str, path: Path, sha256: str) -> None:
        """Sends a file, in parts when it is large."""
        with self._explained(f"/{name} could not be written"):
            if path.stat().st_size < MULTIPART:
                self.put_bytes(name, path.read_bytes(), sha256)
                return
            self.client.upload_file(
                str(path), self.name, self._key(name), ExtraArgs={**self._extra(), "Metadata": {"sha256": sha256}},
                Config=TransferConfig(multipart_threshold=MULTIPART, multipart_chunksize=8 * MIB, max_concurrency=10),
            )  # fmt: skip

    def put_bytes(self, name: str, content: bytes, sha256: str | None = None, **condition: str) -> bool:
        """Sends a small file. With a condition (IfNoneMatch="*", IfMatch=ETAG): False when it does not hold."""
        request = {"Bucket": self.name, "Key": self._key(name), "Body": content, **self._extra()}
        if sha256 is not None:
            request["ChecksumSHA256"] = base64.b64encode(bytes.fromhex(sha256)).decode()
            request["Metadata"] = {"sha256": sha256}
        with self._explained(f"/{name} could not be written"):
            try:
                self.client.put_object(**request, **condition)
            except ClientError as error:
                code = _code(error)
                if condition and code in ("PreconditionFailed", "ConditionalRequestConflict", "412", "409"):
                    return False
                if condition and code == "NoSuchKey":  # IfMatch of what is gone
                    return False
                if condition and code in _UNKNOWN:  # an older server: the caller reads back
                    self.client.put_object(**request)
                    return True
                raise
        return True

    def digest(self, name: str, take: Callable[[bytes], object] = lambda chunk: None) -> tuple[int, str] | None:
        """Size and SHA-256 of a file, read in one stream whose pieces `take` gets; None when there is none."""
        with self._explained(f"/{name} cannot be read"):
            try:
                body = self.client.get_object(Bucket=self.name, Key=self._key(name))["Body"]
            except ClientError as error:
                if _code(error) in ("NoSuchKey", "404"):
                    return None
                raise
            return hashed(body, take)

    def delete(self, names: list[str]) -> None:
        """Removes files, as far as they are there."""
        with self._explained(" could not be cleared"):
            for name in names:
                self.client.delete_object(Bucket=self.name, Key=self._key(name))

    def abort_uploads(self, below: str) -> int:
        """Ends multipart uploads that were left unfinished in the folder `below`; returns how many."""
        prefix, found = f"{self._key(below)}/", 0
        with self._explained(" could not be cleared"):
            try:
                pages = list(self.client.get_paginator("list_multipart_uploads").paginate(
                    Bucket=self.name, Prefix=prefix
                ))  # fmt: skip
            except ClientError as error:
                if _code(error) in _UNKNOWN:
                    return 0
                raise
            for upload in (upload for page in pages for upload in page.get("Uploads", [])):
                if upload["Key"].startswith(prefix):  # not every server heeds the prefix
                    self.client.abort_multipart_upload(Bucket=self.name, Key=upload["Key"], UploadId=upload["UploadId"])
                    found += 1
        return found

    def look(self, name: str) -> Seen | None:
        """A small file with its tag and age, in one request; None when there is none."""
        with self._explained(f"/{name} cannot be read"):
            try:
                found = self.client.get_object(Bucket=self.name, Key=self._key(name))
            except ClientError as error:
                if _code(error) in ("NoSuchKey", "404"):
                    return None
                raise
            now = email.utils.parsedate_to_datetime(found["ResponseMetadata"]["HTTPHeaders"]["date"])
            age = (now.astimezone(datetime.UTC) - found["LastModified"]).total_seconds()
            return Seen(found["Body"].read(), found["ETag"], age)

    def create(self, name: str, content: bytes) -> bool:
        """Writes a small file unless there is one; whether it did."""
        return self.put_bytes(name, content, IfNoneMatch="*")

    def swap(self, name: str, content: bytes, tag: str) -> bool:
        """Writes a small file over that of `tag`, unless it has changed; whether it did."""
        return self.put_bytes(name, content, IfMatch=tag)

    def _key(self, name: str) -> str:
        return "/".join(part for part in (self.prefix, name) if part)

    def _extra(self) -> dict[str, Any]:
        settings = self.settings
        given = {
            "StorageClass": settings.storage_class,
            "ServerSideEncryption": settings.encryption,
            "SSEKMSKeyId": settings.kms_key,
            "Tagging": urlencode({k: v for k, _, v in (tag.partition("=") for tag in settings.tags)}) or None,
        }
        return {name: value for name, value in given.items() if value is not None}

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except _FAILED as error:
            raise UserError(f"{self.folder.address}{what}: {reason(error)}") from error


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


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
