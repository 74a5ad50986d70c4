"""Objects below one s3:// address, through boto3.

Not through pyarrow.fs: it reads with two requests, between which an object may be replaced (a mixture of both was
seen), it uses HEAD requests, whose errors S3 does not explain, and it supports neither conditions nor encryption.
"""

from __future__ import annotations

import datetime
import email.utils
import functools
import io
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlencode

import boto3
from botocore.config import Config as ClientConfig
from botocore.exceptions import ClientError

from singer_ray.errors import UserError
from singer_ray.storage.explain import reason
from singer_ray.storage.protocol import Object, Seen, Sent
from singer_ray.storage.reading import hashed
from singer_ray.storage.s3.send import ABSENT, FAILED, REFUSED, UNKNOWN, code_of, send, send_parts
from singer_ray.storage.s3.settings import endpoint_of, habits_of
from singer_ray.storage.s3.tags import MULTIPART, md5_of, tag_of

if TYPE_CHECKING:
    from singer_ray.storage.address import Address
    from singer_ray.storage.settings import S3Settings

_FEW = 3
"""Tries of the first request to an address: few, so that a wrong one is reported soon."""
_MAKING = threading.Lock()
"""boto3 makes one client at a time."""


class S3Store:
    """A `ServerStore` below s3://BUCKET/PREFIX.

    Requests are repeated with backoff; UserError is raised when that does not help. Credentials come from AWS's
    standard chain.
    """

    path = None
    """It is not on a disk of this machine."""

    def __init__(self, place: Address, settings: S3Settings) -> None:
        """Raises UserError for an endpoint without a scheme."""
        self.address, self.settings, self.attempts = place.text, settings, settings.attempts
        self.bucket, self.prefix = place.bucket, place.key
        # Read here, since other machines of the cluster may lack this environment and these files.
        self.endpoint = endpoint_of(settings.endpoint)
        self.habits = habits_of(self.endpoint)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "client"}

    @functools.cached_property
    def client(self) -> Any:
        """boto3's client, made once in each process: connections cannot be sent to another."""
        return self._client(self.settings.attempts)

    @property
    def name(self) -> str:
        return self.prefix.rpartition("/")[2]

    def below(self, name: str) -> S3Store:
        """The store of its folder `name`."""
        inner = object.__new__(S3Store)
        inner.__dict__.update(self.__dict__)
        inner.address, inner.prefix = f"{self.address}/{name}", self._key(name)
        return inner

    def check(self, *, writable: bool) -> None:
        """Raises UserError when it cannot be listed: no such bucket, no permission, wrong region, expired token."""
        with self._explained(" cannot be reached"):
            try:
                self._client(_FEW).list_objects_v2(Bucket=self.bucket, Prefix=self._under(""), Delimiter="/")
            except ClientError as error:
                if code_of(error) == "NoSuchBucket":
                    raise UserError(
                        f"{self.address}: there is no bucket {self.bucket!r}. Make it first: aws s3 mb s3://{self.bucket}"
                    ) from error
                raise

    def get(self, name: str) -> bytes | None:
        """The content of an object, None when there is none; read again when it was damaged in transit."""
        reply = self._get(name)
        return None if reply is None else reply[0]

    def look(self, name: str) -> Seen | None:
        """A small file with its tag and age, in one request; None when there is none."""
        reply = self._get(name)
        if reply is None:
            return None
        content, answer = reply
        now = email.utils.parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        age = (now.astimezone(datetime.UTC) - answer["LastModified"]).total_seconds()
        return Seen(content, answer["ETag"].strip('"'), age)

    def stream(self, name: str, take: Callable[[bytes], object] = lambda chunk: None) -> tuple[int, str] | None:
        """Size and SHA-256 of an object, read once in pieces that `take` gets; None when there is none."""
        with self._explained(f"/{name} cannot be read"):
            try:
                body = self.client.get_object(Bucket=self.bucket, Key=self._key(name))["Body"]
            except ClientError as error:
                if code_of(error) in ABSENT:
                    return None
                raise
            return hashed(body, take)

    def require(self, name: str) -> None:
        pass  # a server holds nothing but files

    def list(self, below: str = "") -> dict[str, Object]:
        """All objects in it, or in its folder `below`: name in the store -> object."""
        with self._explained(" cannot be listed"):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._under(below))
            entries = [entry for page in pages for entry in page.get("Contents", [])]
        start = len(self._under(""))
        return {
            e["Key"][start:]: Object(e["Size"], e["ETag"].strip('"')) for e in entries if not e["Key"].endswith("/")
        }

    def folders(self, below: str = "") -> Sequence[str]:
        """The names of the folders right in it, or in its folder `below`."""
        with self._explained(" cannot be listed"):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self._under(below), Delimiter="/"
            )
            prefixes = [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", [])]
        start = len(self._under(""))
        return sorted(prefix[start:].rstrip("/") for prefix in prefixes)

    def put(self, name: str, content: bytes) -> None:
        """Writes an object over whatever is there."""
        if len(content) >= MULTIPART:
            with self._explained(f"/{name} could not be written"):
                self._put_parts(name, io.BytesIO(content), len(content), self._extra(), {})
        else:
            self._put(name, content, self._extra(), {})

    def put_file(self, name: str, path: Path, *, over: str | None) -> Sent | None:
        """Sends a file of a package: over the object that has the tag `over`, or as a new one (None).

        Returns None when something else is there: this stops late writes of a process that has lost its claim.
        """
        condition = {"IfNoneMatch": "*"} if over is None else {"IfMatch": over}
        extra = self._extra(tagged=True, stored=True)
        with self._explained(f"/{name} could not be written"), path.open("rb") as file:
            size = path.stat().st_size
            if size < MULTIPART:
                return self._put(name, file.read(), extra, condition)
            return self._put_parts(name, file, size, extra, condition)

    def tag_of(self, path: Path) -> str:
        return tag_of(path)

    def create(self, name: str, content: bytes) -> bool:
        return self._put(name, content, self._extra(), {"IfNoneMatch": "*"}) is not None

    def seal(self, name: str, content: bytes) -> bool:
        return self._put(name, content, self._extra(tagged=True), {"IfNoneMatch": "*"}) is not None

    def swap(self, name: str, content: bytes, tag: str) -> bool:
        """Overwrites a small file if it still has the tag `tag`; returns whether it did."""
        return self._put(name, content, self._extra(), {"IfMatch": tag}) is not None

    def copy(self, name: str, target: str) -> None:
        """Copies an object within the bucket, by the server itself."""
        with self._explained(f"/{target} could not be written"):
            extra = self._extra(tagged=True, stored=True)
            extra |= {"TaggingDirective": "REPLACE"} if "Tagging" in extra else {}
            self.client.copy(self._address(name), self.bucket, self._key(target), ExtraArgs=extra)

    def delete(self, names: Sequence[str], tag: str | None = None) -> None:
        """Removes those objects that exist; with `tag`, only if they still have it."""
        condition = {} if tag is None else {"IfMatch": tag}
        with self._explained(" could not be cleared"):
            for name in names:
                key = self._address(name)
                try:
                    self.client.delete_object(**key, **condition)
                except ClientError as error:
                    if condition and code_of(error) in UNKNOWN:
                        self.client.delete_object(**key)
                    elif code_of(error) not in (*REFUSED, *ABSENT):
                        raise

    def abort_uploads(self, below: str = "") -> int:
        """Aborts unfinished multipart uploads in it, or in its folder `below`; returns how many."""
        prefix, aborted = self._under(below), 0
        with self._explained(" could not be cleared"):
            try:
                pages = list(
                    self.client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=prefix)
                )
            except ClientError as error:
                if code_of(error) in (*UNKNOWN, "AccessDenied"):  # without the permission to list them, they stay
                    return 0
                raise
            for upload in (upload for page in pages for upload in page.get("Uploads", [])):
                if upload["Key"].startswith(prefix):  # not every server honours the prefix
                    self.client.abort_multipart_upload(
                        Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
                    aborted += 1
        return aborted

    def _client(self, attempts: int) -> Any:
        timeout = self.settings.timeout
        config = ClientConfig(
            retries={"mode": "standard", "total_max_attempts": attempts},
            connect_timeout=min(10.0, timeout),
            read_timeout=timeout,
            max_pool_connections=16,
            tcp_keepalive=True,
            response_checksum_validation="when_required",  # whatever is read is hashed by its reader
            **self.habits,
        )
        region = os.environ.get("AWS_REGION")  # AWS's other tools honour it; boto3 does not
        with _MAKING, self._explained(" cannot be reached"):
            return boto3.client("s3", endpoint_url=self.endpoint, region_name=region, config=config)

    def _get(self, name: str) -> tuple[bytes, Mapping[str, Any]] | None:
        """Content and answer, read again when the content did not arrive or was damaged in transit."""
        before: bytes | None = None
        last_error: Exception | None = None
        for attempt in range(self.settings.attempts):
            time.sleep(0.1 * attempt)
            with self._explained(f"/{name} cannot be read"):
                try:
                    answer = self.client.get_object(Bucket=self.bucket, Key=self._key(name))
                except ClientError as error:
                    if code_of(error) in ABSENT:
                        return None
                    raise
            try:
                content = answer["Body"].read()
            except FAILED as error:
                last_error = error
                continue
            tag = answer["ETag"].strip('"')
            # Where the tag is not the MD5 of the content, two reads that agree must do.
            if tag == md5_of(content) or content == before or "-" in tag or _is_keyed(answer):
                return content, answer
            before = content
        why = reason(last_error) if last_error else "it is different at each reading."
        raise UserError(f"{self.address}/{name} cannot be read: {why} Check the connection.")

    def _put(self, name: str, content: bytes, extra: Mapping[str, Any], condition: Mapping[str, str]) -> Sent | None:
        request = {**self._address(name), **extra}
        with self._explained(f"/{name} could not be written"):
            return send(self.client, request, content, condition, self.settings.attempts)

    def _put_parts(
        self, name: str, file: IO[bytes], size: int, extra: Mapping[str, Any], condition: Mapping[str, str]
    ) -> Sent | None:
        return send_parts(self.client, self._address(name), file, size, extra, condition, self.settings.attempts)

    def _address(self, name: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self._key(name)}

    def _key(self, name: str) -> str:
        return "/".join(part for part in (self.prefix, name) if part)

    def _under(self, below: str) -> str:
        return f"{self._key(below)}/".lstrip("/")

    def _extra(self, *, tagged: bool = False, stored: bool = False) -> dict[str, Any]:
        """Tags are for packages only, the storage class for their contents only: small files stay quick to read."""
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
        except FAILED as error:
            raise UserError(f"{self.address}{what}: {reason(error)}") from error


def _is_keyed(answer: Mapping[str, Any]) -> bool:
    return str(answer.get("ServerSideEncryption", "")).startswith("aws:kms") or "SSECustomerAlgorithm" in answer
