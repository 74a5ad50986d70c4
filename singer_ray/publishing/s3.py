"""What S3 can and pyarrow.fs cannot: conditional and multipart uploads, encryption, storage classes, tags, leases."""

from __future__ import annotations

import base64
import datetime
import email.utils
import functools
import hashlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config as ClientConfig
from botocore.exceptions import BotoCoreError, ClientError

from singer_ray.errors import UserError
from singer_ray.storage import Folder, endpoint_of, hashed, reason

if TYPE_CHECKING:
    from singer_ray.config import ExportConfig

MIB = 1 << 20
MULTIPART = 16 * MIB
"""Files from this size on are sent in parts of 8 MiB, several at a time."""
LEASE = 120.0
"""Seconds after which a claim that nobody renews has lapsed."""
_UNKNOWN = ("NotImplemented", "MethodNotAllowed", "501", "405")
"""What smaller servers answer to a request that they do not know."""
_FAILED = (ClientError, BotoCoreError, Boto3Error, OSError)
_HELD: set[str] = set()
"""The claims that this process holds."""
Result = TypeVar("Result")


class Bucket:
    """Writes below one s3:// address. Requests are repeated with backoff; UserError is raised when that does not help.

    Credentials come from AWS's standard chain. `folder` reads what this writes.
    """

    def __init__(self, folder: Folder, settings: ExportConfig) -> None:
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

    def head(self, name: str) -> Mapping[str, Any] | None:
        """What the server says of a file, and `age` in seconds by the server's own clock; None when there is none."""
        with self._explained(f"/{name} cannot be read"):
            try:
                found = self.client.head_object(Bucket=self.name, Key=self._key(name))
            except ClientError as error:
                if _code(error) in ("404", "NoSuchKey", "NotFound"):
                    return None
                raise
        now = email.utils.parsedate_to_datetime(found["ResponseMetadata"]["HTTPHeaders"]["date"])
        return {**found, "age": (now.astimezone(datetime.UTC) - found["LastModified"]).total_seconds()}

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


class Claim:
    """The right to write one package, held while the block runs: of several exports at once, one writes at a time.

    A file NAME.claim, made by a conditional put and renewed while it is held. It passes on when its holder lets go, has
    not renewed it for `lease` seconds, or was a process of this machine that has ended. Raises UserError after waiting
    for twice `lease`.
    """

    def __init__(self, bucket: Bucket, name: str, *, lease: float = LEASE) -> None:
        self.bucket, self.name, self.lease = bucket, f"{name}.claim", lease
        self.owner = {**_process(), "claim": uuid.uuid4().hex}
        self.lost = False
        self._ended = threading.Event()
        self._renewing = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> Claim:
        _HELD.add(self.owner["claim"])  # before the first try: another thread may look at once
        try:
            self._wait()
        except BaseException:
            _HELD.discard(self.owner["claim"])
            raise
        self._renewing.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._ended.set()
        self._renewing.join()
        _HELD.discard(self.owner["claim"])
        try:
            if not self.lost and self._holder() == self.owner:
                self.bucket.delete([self.name])
        except UserError:
            if kind is None:  # else what happened first is what matters; the claim lapses
                raise

    @property
    def content(self) -> bytes:
        """The claim as a file: its owner, and the SHA-256 of that line."""
        text = json.dumps(self.owner).encode()
        return text + b"\n" + hashlib.sha256(text).hexdigest().encode()

    def clear(self) -> None:
        """Removes a claim that was left behind, without taking it."""
        found = self.bucket.head(self.name)
        if found is not None and (_has_ended(self._holder()) or found["age"] > self.lease):
            self.bucket.delete([self.name])

    def check(self) -> None:
        """Raises UserError when another has taken over."""
        if self.lost:
            raise UserError(
                f"{self.bucket.folder.address}/{self.name} was taken over by another export, because this one did not "
                "renew it in time. Publish again."
            )

    def _wait(self) -> None:
        deadline = time.monotonic() + 2 * self.lease
        while not self._take():
            if time.monotonic() > deadline:
                raise UserError(
                    f"{self.bucket.folder.address}/{self.name.removesuffix('.claim')} is being written by another "
                    "export. Wait for it to end, and publish again."
                )
            time.sleep(min(1.0, self.lease / 10))

    def _take(self) -> bool:
        content = self.content
        if self.bucket.put_bytes(self.name, content, IfNoneMatch="*"):
            return self._holder() == self.owner  # a server may ignore the condition
        holder = self._holder()
        if holder == self.owner:  # the answer to the put was lost, and the put repeated
            return True
        found = self.bucket.head(self.name)
        if found is None or not (_has_ended(holder) or found["age"] > self.lease):
            return False
        return self.bucket.put_bytes(self.name, content, IfMatch=found["ETag"]) and self._holder() == self.owner

    def _holder(self) -> dict[str, str] | None:
        """Who holds it; None where nobody does, or the file was spoilt on its way."""
        content = self.bucket.folder.read(self.name)
        text, _, digest = (content or b"").partition(b"\n")
        if hashlib.sha256(text).hexdigest().encode() != digest:
            return None
        found: dict[str, str] = json.loads(text)
        return found

    def _renew(self) -> None:
        renewed = time.monotonic()
        while not self._ended.wait(self.lease / 4):
            try:
                if self._holder() == self.owner:
                    self.bucket.put_bytes(self.name, self.content)
                    renewed = time.monotonic()
                else:
                    self.lost = True
            except UserError:
                self.lost = time.monotonic() - renewed > self.lease
            if self.lost:
                return


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


def _process() -> dict[str, str]:
    return {"machine": _machine(), "process": str(os.getpid()), "begun": _begun(os.getpid()) or ""}


def _machine() -> str:
    """This machine since its start, and its process numbers (a container has its own)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{platform.node()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{platform.node()} {uuid.getnode()}"


def _begun(process: int) -> str | None:
    """When a process began, in clock ticks; None when there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        return None


def _has_ended(holder: Mapping[str, str] | None) -> bool:
    """Whether the holder of a claim was a process of this machine that is gone (or the claim is unreadable)."""
    if holder is None:
        return True
    try:
        if {name: holder[name] for name in ("machine", "process", "begun")} == _process():
            return holder["claim"] not in _HELD  # of this process itself: left by an export that failed
        return holder["machine"] == _machine() and (_begun(int(holder["process"])) or "") != holder["begun"]
    except (KeyError, ValueError, TypeError):
        return True
