"""Folders at a local path or at s3://bucket/prefix."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from singer_ray.errors import UserError, printable
from singer_ray.storage.address import Address, leads_out
from singer_ray.storage.drafts import DRAFT, write_whole
from singer_ray.storage.explain import reason
from singer_ray.storage.reading import UnfitError, opened, stays_inside

if TYPE_CHECKING:
    from singer_ray.storage.s3 import Bucket
    from singer_ray.storage.s3_settings import S3Settings

TIMEOUT = 60.0
"""Seconds without an answer from a server after which a request has failed."""
CHUNK = 1 << 22


class Folder:
    """Files below one address; names are relative to it, with `/` between parts.

    Whose files they are is not known: names that would lead out of the folder are refused, and locally so are links
    that do, and whatever is not a regular file (UserError).

    Credentials come from AWS's standard chain (environment, profile, instance role). `endpoint` is the address of an
    S3-compatible server; without it AWS_ENDPOINT_URL_S3 and AWS_ENDPOINT_URL are honoured.

    Args:
        address: a path, file://PATH, or s3://BUCKET/PREFIX.
        setting: how the user calls the address, for messages.
        timeout: seconds without an answer from the server after which a request has failed.
        writable: whether a local address must be one that can be written.
        settings: of S3, instead of endpoint and timeout.

    Raises UserError for an address that cannot be used: other scheme, no such bucket, no permission, no connection.
    """

    def __init__(
        self,
        address: str,
        endpoint: str | None = None,
        *,
        setting: str = "the address",
        timeout: float = TIMEOUT,
        writable: bool = True,
        settings: S3Settings | None = None,
    ) -> None:
        place = Address.of(address, setting)
        self.address, self.setting = place.text, setting
        self.bucket: Bucket | None = None
        """What it is in S3; None for a local folder."""
        self.root = place.folder or Path()
        """A local folder's path."""
        self._outermost = self.root
        """Of the folders that it is in, the one that was named: links may lead to other places in it."""
        if place.folder is None:
            self.bucket = _bucket(place.text, settings, endpoint, timeout, setting)
            return
        parent = next(p for p in (self.root, *self.root.parents) if p.exists())
        if writable and (not parent.is_dir() or not os.access(parent, os.W_OK)):
            raise UserError(f"{setting} {address!r} cannot be written: {parent} is not a writable folder.")

    @property
    def is_local(self) -> bool:
        return self.bucket is None

    @property
    def name(self) -> str:
        """Its own name: the last part of its address."""
        return self.root.resolve().name if self.bucket is None else self.bucket.prefix.rpartition("/")[2]

    def below(self, name: str) -> Folder:
        """The folder `name` in this one. Raises UserError for a name that leads out of it."""
        self._check(name)
        inner = object.__new__(Folder)
        inner.__dict__ |= self.__dict__
        inner.address, inner.root = f"{self.address}/{name}", self.root / name
        inner.bucket = None if self.bucket is None else self.bucket.below(name)
        return inner

    def read(self, name: str) -> bytes | None:
        """The content of a file, None when there is none. Raises UserError when it cannot be read."""
        self._check(name)
        if self.bucket is not None:
            return self.bucket.get(name)
        try:
            with opened(self._real(name)) as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unread(name, error) from error

    def require(self, name: str) -> None:
        """Raises UserError for a file that will not be read, whatever is in it."""
        self._check(name)
        if self.bucket is None:
            with contextlib.suppress(OSError), opened(self._real(name)):
                pass  # what else is wrong shows when it is read

    def digest(self, name: str) -> tuple[int, str] | None:
        """Size and SHA-256 of a file, read through to its end; None when there is none. Raises UserError."""
        return self._stream(name, lambda chunk: None)

    def fetch(self, name: str, path: Path) -> tuple[int, str] | None:
        """Copies a file to `path`; its size and SHA-256 as they came, or None when there is none. Raises UserError."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as target:
                found = self._stream(name, _checked(target.write))
            if found is None:
                path.unlink()
        except UnfitError:
            path.unlink()
            raise
        except (_TargetError, OSError) as error:
            raise UserError(f"{path} could not be written: {reason(error)}") from error
        return found

    def write(self, name: str, content: bytes) -> str:
        """Writes a file whole or not at all, over an earlier one; returns its address. Raises UserError."""
        self._check(name)
        if self.bucket is not None:
            self.bucket.put(name, content)
            return f"{self.address}/{name}"
        path = self.root / name
        stays_inside(path.parent, self._outermost)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)  # several may write one name
        except OSError as error:
            raise UserError(f"{self.address}/{name} could not be written: {reason(error)}") from error
        return f"{self.address}/{name}"

    def names(self, below: str = "") -> list[str]:
        """The names of all files in it, or in its folder `below`, sorted; drafts apart. Raises UserError."""
        if self.bucket is not None:
            return sorted(name for name in self.bucket.list(below) if not name.endswith(DRAFT))
        try:
            found = [
                path for path in self._inside(below).rglob("*") if path.is_file() and not path.name.endswith(DRAFT)
            ]
        except OSError as error:
            raise UserError(f"{self.address} cannot be listed: {reason(error)}") from error
        return sorted(path.relative_to(self.root).as_posix() for path in found)

    def folders(self, below: str = "") -> Sequence[str]:
        """The names of the folders right in it, or in its folder `below`, sorted. Raises UserError."""
        if self.bucket is not None:
            return self.bucket.folders(below)
        try:
            found = [path for path in self._inside(below).iterdir() if path.is_dir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise UserError(f"{self.address} cannot be listed: {reason(error)}") from error
        return sorted(path.relative_to(self.root).as_posix() for path in found)

    def delete(self, name: str) -> None:
        """Removes a file, if it is there. Raises UserError."""
        self._check(name)
        if self.bucket is not None:
            self.bucket.delete([name])
            return
        try:
            (self.root / name).unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{self.address}/{name} could not be removed: {reason(error)}") from error

    def _check(self, name: str) -> None:
        if leads_out(name):
            raise UnfitError(
                f"{printable(self.address)} is asked for {printable(name)!r}, which would lead out of it. Do not use "
                "what names it so."
            )

    def _real(self, name: str) -> Path:
        return stays_inside(self.root / name, self._outermost)

    def _inside(self, below: str) -> Path:
        """The folder `below` in this one, once it is known that links lead nowhere else."""
        if below:
            self._check(below)
        self._real(below)
        return self.root / below

    def _stream(self, name: str, take: Callable[[bytes], object]) -> tuple[int, str] | None:
        self._check(name)
        if self.bucket is not None:
            return self.bucket.stream(name, take)
        try:
            with opened(self._real(name)) as stream:
                return hashed(stream, take)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unread(name, error) from error

    def _unread(self, name: str, error: OSError) -> UserError:
        return UserError(f"{printable(self.address)}/{printable(name)} cannot be read: {reason(error)}")


class _TargetError(Exception):
    """A fault of where a copy goes, not of where it comes from."""


def _checked(write: Callable[[bytes], object]) -> Callable[[bytes], None]:
    def take(chunk: bytes) -> None:
        try:
            write(chunk)
        except OSError as error:
            raise _TargetError(str(error)) from error

    return take


def _bucket(address: str, settings: S3Settings | None, endpoint: str | None, timeout: float, setting: str) -> Bucket:
    from singer_ray.storage.s3 import Bucket  # boto3 comes with it
    from singer_ray.storage.s3_settings import Defaults

    try:
        found = Bucket(address, settings or Defaults(endpoint=endpoint, timeout=timeout))
        found.check()
    except UserError as error:
        raise UserError(f"{setting} {error}") from error
    return found


def hashed(stream: IO[bytes] | Any, take: Callable[[bytes], object] = lambda chunk: None) -> tuple[int, str]:
    """Size and SHA-256 of what is left in a stream; each piece is handed to `take`."""
    size, digest = 0, hashlib.sha256()
    while chunk := stream.read(CHUNK):
        digest.update(chunk)
        take(chunk)
        size += len(chunk)
    return size, digest.hexdigest()
