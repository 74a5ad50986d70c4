"""Folders at a local path or on a server, such as s3://bucket/prefix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from singer_ray.errors import UserError, printable
from singer_ray.storage.address import Address, leads_out
from singer_ray.storage.drafts import DRAFT
from singer_ray.storage.explain import reason
from singer_ray.storage.reading import UnfitError
from singer_ray.storage.settings import TIMEOUT, Defaults, S3Settings
from singer_ray.storage.stores import open_store


class Folder:
    """Files below one address, in the store of its scheme; names are relative to it, with `/` between parts.

    The files may be a stranger's: names that would lead out of the folder are refused (UserError), and so, in local
    folders, are links that do, and anything but regular files.

    Credentials come from AWS's standard chain (environment, profile, instance role). `endpoint` is the address of an
    S3-compatible server; without it AWS_ENDPOINT_URL_S3 and AWS_ENDPOINT_URL are honoured.

    Args:
        address: a path, file://PATH, or s3://BUCKET/PREFIX.
        setting: how the user calls the address, for messages.
        timeout: seconds without an answer from the server after which a request has failed.
        writable: whether a local address must be one that can be written.
        settings: for S3, instead of endpoint and timeout.

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
        try:
            self.store = open_store(place, settings or Defaults(endpoint=endpoint, timeout=timeout))
            self.store.check(writable=writable)
        except UserError as error:
            raise UserError(f"{setting} {error}") from error

    @property
    def address(self) -> str:
        return self.store.address

    @property
    def path(self) -> Path | None:
        """Where it is on this machine; None on a server."""
        return self.store.path

    @property
    def name(self) -> str:
        """Its own name: the last part of its address."""
        return self.store.name

    def below(self, name: str) -> Folder:
        """The folder `name` in this one. Raises UserError for a name that leads out of it."""
        self._check(name)
        inner = object.__new__(Folder)
        inner.store = self.store.below(name)
        return inner

    def read(self, name: str) -> bytes | None:
        """The content of a file, None when there is none. Raises UserError when it cannot be read."""
        self._check(name)
        return self.store.get(name)

    def require(self, name: str) -> None:
        """Raises UserError for a file that is refused whatever is in it."""
        self._check(name)
        self.store.require(name)

    def digest(self, name: str) -> tuple[int, str] | None:
        """Size and SHA-256 of a file, read through to its end; None when there is none. Raises UserError."""
        self._check(name)
        return self.store.stream(name, lambda chunk: None)

    def fetch(self, name: str, path: Path) -> tuple[int, str] | None:
        """Copies a file to `path`; returns size and SHA-256 of what came, None when there is none. Raises UserError."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as target:
                self._check(name)
                size_and_hash = self.store.stream(name, _checked(target.write))
            if size_and_hash is None:
                path.unlink()
        except UnfitError:
            path.unlink()
            raise
        except (_TargetError, OSError) as error:
            raise UserError(f"{path} could not be written: {reason(error)}") from error
        return size_and_hash

    def write(self, name: str, content: bytes) -> str:
        """Writes a file whole or not at all, over an earlier one; returns its address. Raises UserError."""
        self._check(name)
        self.store.put(name, content)
        return f"{self.address}/{name}"

    def create(self, name: str, content: bytes) -> bool:
        """Writes a small file unless it exists; returns whether it did. Raises UserError."""
        self._check(name)
        return self.store.create(name, content)

    def names(self, below: str = "") -> list[str]:
        """The names of all files in it, or in its folder `below`, sorted, without drafts. Raises UserError."""
        if below:
            self._check(below)
        return sorted(name for name in self.store.list(below) if not name.endswith(DRAFT))

    def folders(self, below: str = "") -> Sequence[str]:
        """The names of the folders right in it, or in its folder `below`, sorted. Raises UserError."""
        if below:
            self._check(below)
        return self.store.folders(below)

    def delete(self, name: str) -> None:
        """Removes a file, if it is there. Raises UserError."""
        self._check(name)
        self.store.delete([name])

    def abort_uploads(self) -> None:
        """Aborts writes that processes left unfinished when they died. Raises UserError."""
        self.store.abort_uploads()

    def _check(self, name: str) -> None:
        if leads_out(name):
            raise UnfitError(
                f"{printable(self.address)} is asked for {printable(name)!r}, which would lead out of it. Do not use "
                "what names it so."
            )


class _TargetError(Exception):
    """An error at the destination of a copy, not at its source."""


def _checked(write: Callable[[bytes], object]) -> Callable[[bytes], None]:
    def take(chunk: bytes) -> None:
        try:
            write(chunk)
        except OSError as error:
            raise _TargetError(str(error)) from error

    return take
