"""Folders at a local path or at s3://bucket/prefix, through pyarrow.fs."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

from pyarrow import fs

from singer_ray.errors import UserError

TIMEOUT = 60.0
"""Seconds without an answer from a server after which a request has failed."""
DRAFT = ".part"
"""End of the name of a file that is being written."""
CHUNK = 1 << 22


class Folder:
    """Files below one address; names are relative to it, with `/` between parts.

    Credentials come from AWS's standard chain (environment, profile, instance role). `endpoint` is the address of an
    S3-compatible server; without it AWS_ENDPOINT_URL_S3 and AWS_ENDPOINT_URL are honoured.

    Args:
        address: a path, file://PATH, or s3://BUCKET/PREFIX.
        knob: how the user calls the address, for messages.
        timeout: seconds without an answer from the server after which a request has failed.
        writable: whether a local address must be one that can be written.

    Raises UserError for an address that cannot be used: other scheme, no such bucket, no permission, no connection.
    """

    def __init__(
        self,
        address: str,
        endpoint: str | None = None,
        *,
        knob: str = "the address",
        timeout: float = TIMEOUT,
        writable: bool = True,
    ) -> None:
        # The environment is asked here: elsewhere in the cluster it may say nothing.
        self.address, self.endpoint, self.knob = address.rstrip("/") or "/", endpoint_of(endpoint), knob
        self.timeout = timeout
        parts = urlsplit(address)
        self.is_local = parts.scheme in ("", "file")
        if self.is_local:
            self.root = str(Path(parts.path if parts.scheme else address).absolute())
            parent = next(p for p in (Path(self.root), *Path(self.root).parents) if p.exists())
            if writable and (not parent.is_dir() or not os.access(parent, os.W_OK)):
                raise UserError(f"{knob} {address!r} cannot be written: {parent} is no folder that may be written to.")
        elif parts.scheme == "s3":
            if not parts.netloc:
                raise UserError(f"{knob} {address!r} names no bucket. Allowed: s3://BUCKET/PREFIX.")
            self.root = f"{parts.netloc}{parts.path}".rstrip("/")
        else:
            raise UserError(
                f"{knob} {address!r} has the scheme {parts.scheme!r}. Allowed: a folder, or s3://BUCKET/PREFIX."
            )
        self._filesystem: fs.FileSystem | None = None
        if not self.is_local:
            self._check_bucket(parts.netloc)

    @property
    def filesystem(self) -> fs.FileSystem:
        """pyarrow's view of it; names are below `root`."""
        if self._filesystem is None:
            self._filesystem = fs.LocalFileSystem() if self.is_local else _s3(self.endpoint, self.timeout)
        return self._filesystem

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_filesystem": None}  # a connection stays in the process that made it

    def below(self, name: str) -> Folder:
        """The folder `name` in this one."""
        inner = object.__new__(Folder)
        inner.__dict__ |= self.__dict__
        inner.address, inner.root = f"{self.address}/{name}", f"{self.root}/{name}"
        return inner

    def read(self, name: str) -> bytes | None:
        """The content of a file, None when there is none. Raises UserError when it cannot be read."""
        try:
            with self.filesystem.open_input_stream(f"{self.root}/{name}") as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{self.address}/{name} cannot be read: {reason(error)}") from error

    def digest(self, name: str) -> tuple[int, str] | None:
        """Size and SHA-256 of a file, read through to its end; None when there is none. Raises UserError."""
        return self._stream(name, lambda chunk: None)

    def fetch(self, name: str, path: Path) -> tuple[int, str] | None:
        """Copies a file to `path`; its size and SHA-256 as they came, or None when there is none. Raises UserError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as target:
            found = self._stream(name, target.write)
        if found is None:
            path.unlink()
        return found

    def write(self, name: str, content: bytes) -> str:
        """Writes a file whole or not at all, over an earlier one; returns its address. Raises UserError."""
        target = f"{self.root}/{name}"
        try:
            if self.is_local:
                path = Path(target)
                path.parent.mkdir(parents=True, exist_ok=True)
                draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}{DRAFT}")  # several may write one name
                try:
                    draft.write_bytes(content)
                    draft.replace(path)
                finally:
                    draft.unlink(missing_ok=True)
            else:  # an object appears when its upload has ended, and not before
                with self.filesystem.open_output_stream(target) as stream:
                    stream.write(content)
        except OSError as error:
            raise UserError(f"{self.address}/{name} could not be written: {reason(error)}") from error
        return f"{self.address}/{name}"

    def names(self, below: str = "") -> list[str]:
        """The names of all files in it, or in its folder `below`, sorted. Raises UserError."""
        return sorted(self.sizes(below))

    def sizes(self, below: str = "") -> dict[str, int]:
        """Name -> bytes of all files in it, or in its folder `below`. Raises UserError."""
        found = self._list(below, recursive=True)
        return {self._name(info): info.size for info in found if info.type == fs.FileType.File}

    def folders(self, below: str = "") -> list[str]:
        """The names of the folders right in it, or in its folder `below`, sorted. Raises UserError."""
        found = self._list(below, recursive=False)
        return sorted(self._name(info) for info in found if info.type == fs.FileType.Directory)

    def delete(self, name: str) -> None:
        """Removes a file, if it is there. Raises UserError."""
        try:
            self.filesystem.delete_file(f"{self.root}/{name}")
        except FileNotFoundError:
            return
        except OSError as error:
            raise UserError(f"{self.address}/{name} could not be removed: {reason(error)}") from error

    def _list(self, below: str, *, recursive: bool) -> list[Any]:
        selector = fs.FileSelector(f"{self.root}/{below}".rstrip("/"), recursive=recursive, allow_not_found=True)
        try:
            found: list[Any] = self.filesystem.get_file_info(selector)
        except OSError as error:
            raise UserError(f"{self.address} cannot be listed: {reason(error)}") from error
        return [info for info in found if not info.path.endswith(DRAFT)]

    def _name(self, info: Any) -> str:
        return str(PurePosixPath(info.path).relative_to(self.root if self.is_local else self.root.lstrip("/")))

    def _stream(self, name: str, take: Callable[[bytes], object]) -> tuple[int, str] | None:
        try:
            with self.filesystem.open_input_stream(f"{self.root}/{name}") as stream:
                return hashed(stream, take)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{self.address}/{name} cannot be read: {reason(error)}") from error

    def _check_bucket(self, bucket: str) -> None:
        try:
            found = self.filesystem.get_file_info(bucket).type != fs.FileType.NotFound
        except OSError as error:
            raise UserError(
                f"{self.knob} {self.address!r} cannot be reached: {reason(error)} Check credentials, region, endpoint."
            ) from error
        if not found:
            raise UserError(
                f"{self.knob} {self.address!r}: there is no bucket {bucket!r}. Make it first: aws s3 mb s3://{bucket}"
            )


def endpoint_of(given: str | None) -> str | None:
    """The S3-compatible server to talk to: as given, else of the environment; None for AWS itself."""
    return given or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def hashed(stream: IO[bytes] | Any, take: Callable[[bytes], object] = lambda chunk: None) -> tuple[int, str]:
    """Size and SHA-256 of what is left in a stream; each piece is handed to `take`."""
    size, digest = 0, hashlib.sha256()
    while chunk := stream.read(CHUNK):
        digest.update(chunk)
        take(chunk)
        size += len(chunk)
    return size, digest.hexdigest()


def without_credentials(text: str) -> str:
    """A text whose addresses have lost what stands before their @: `postgresql://me:secret@host` -> `...//***@host`."""
    return _USER.sub(r"\1***@", text)


def reason(error: Exception) -> str:
    """An error of a file system or of S3 as one sentence, and one of advice where the cause is a known one."""
    text = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    text = f"{without_credentials(text)[:300]}."
    return next((f"{text} {advice}" for pattern, advice in _ADVICE if pattern.search(str(error))), text)


_USER = re.compile(r"(://)[^/@\s\"']+@")
_ADVICE = [(re.compile(pattern), advice) for pattern, advice in (
    ("ExpiredToken|EXPIRED_TOKEN|[Tt]oken.{0,20}expired|RequestExpired",
     "The session has expired: log in again (aws sso login), or renew AWS_SESSION_TOKEN."),
    ("PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocation|[Rr]egion.{0,40}(wrong|expecting)|status 301",
     "The bucket is in another region: set AWS_REGION to it."),
    ("NoCredentials|Unable to locate credentials|CredentialRetrieval|[Cc]ould not load credentials",
     "Give credentials in the standard way: AWS_PROFILE, AWS_ACCESS_KEY_ID, or the role of the machine."),
    ("InvalidAccessKeyId|INVALID_ACCESS_KEY_ID|SignatureDoesNotMatch|INVALID_SIGNATURE|SIGNATURE_DOES_NOT_MATCH",
     "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."),
    (r"AccessDenied|ACCESS_DENIED|Forbidden|\(403\)",
     "These credentials may not: allow s3:ListBucket, s3:GetObject, s3:PutObject, s3:DeleteObject and "
     "s3:AbortMultipartUpload there."),
    ("RequestTimeTooSkewed|REQUEST_TIME_TOO_SKEWED", "Set the clock of this machine."),
    ("NoSuchBucket|NO_SUCH_BUCKET", "Make the bucket first: aws s3 mb s3://BUCKET."),
    ("InvalidStorageClass", "Correct export.storage_class (STANDARD, STANDARD_IA, INTELLIGENT_TIERING, ...)."),
    ("KMS|InvalidEncryptionAlgorithm", "Check export.encryption and export.kms_key."),
    (r"No space left|Disk quota|File too large|Errno (28|122|27)\b", "Make room there, or give another address."),
    (r"Read-only file system|Permission denied|Errno (30|13)\b", "Give a folder that may be written to."),
)]  # fmt: skip


def _s3(endpoint: str | None, timeout: float) -> fs.FileSystem:
    # Failing quickly matters at the start of a search; retries of a real upload are short all the same.
    settings = {"connect_timeout": min(10.0, timeout), "request_timeout": timeout}
    if endpoint is None:
        return fs.S3FileSystem(**settings)
    parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
    return fs.S3FileSystem(endpoint_override=parts.netloc, scheme=parts.scheme, **settings)
