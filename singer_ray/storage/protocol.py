"""What a store of files has to offer; each kind of place has a class that does (see README.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, runtime_checkable


@dataclass(frozen=True)
class Object:
    """A file as a listing shows it."""

    size: int
    """Bytes."""
    tag: str
    """Changes with the content: on most servers a hash of it. Empty where the store would have to read the file."""


@dataclass(frozen=True)
class Seen:
    """A small file as it was when it was looked at."""

    content: bytes
    tag: str
    """Changes with the content."""
    age: float
    """Seconds since it was written, by the clock of the store itself."""


@dataclass(frozen=True)
class Sent:
    """A file that a server has taken."""

    tag: str
    """The tag that the server gave it."""
    own: str
    """The tag that its content should have, where tags are hashes."""
    sha256: str
    """Of what was sent."""

    @property
    def confirmed(self) -> bool:
        """Whether the tag proves that the content arrived as it was sent."""
        return self.tag == self.own


class LeaseFiles(Protocol):
    """Small files written under a condition. All methods raise UserError when the store cannot be reached."""

    def look(self, name: str) -> Seen | None:
        """The file, None when there is none."""

    def create(self, name: str, content: bytes) -> bool:
        """Writes a file unless it exists; returns whether it did."""

    def swap(self, name: str, content: bytes, tag: str) -> bool:
        """Overwrites a file if it still has the tag `tag`; returns whether it did."""

    def delete(self, names: Sequence[str], tag: str | None = None) -> None:
        """Removes those files that exist; with `tag`, only if they still have it."""


@runtime_checkable
class ObjectStore(LeaseFiles, Protocol):
    """Files below one address; names are relative to it, with `/` between parts, and do not lead out of it.

    A store is made from an Address and S3Settings; it can be shared by threads and sent to other processes. All methods
    raise UserError, which names the address, when the store cannot be reached or refuses.
    """

    address: str

    @property
    def name(self) -> str:
        """The last part of its address."""

    @property
    def path(self) -> Path | None:
        """Where it is on this machine; None on a server."""

    def check(self, *, writable: bool) -> None:
        """Raises UserError when it cannot be used as it is: no such place, no permission, no connection."""

    def below(self, name: str) -> Self:
        """The store of its folder `name`."""

    def get(self, name: str) -> bytes | None:
        """The content of a file, None when there is none."""

    def stream(self, name: str, take: Callable[[bytes], object]) -> tuple[int, str] | None:
        """Size and SHA-256 of a file, read once in pieces that `take` gets; None when there is none."""

    def require(self, name: str) -> None:
        """Raises UserError for a file that is refused whatever is in it."""

    def list(self, below: str = "") -> Mapping[str, Object]:
        """All files in it, or in its folder `below`: name in the store -> file."""

    def folders(self, below: str = "") -> Sequence[str]:
        """The names of the folders right in it, or in its folder `below`, sorted."""

    def put(self, name: str, content: bytes) -> None:
        """Writes a file whole or not at all, over an earlier one."""

    def copy(self, name: str, target: str) -> None:
        """Copies a file within the store, over an earlier one."""

    def abort_uploads(self, below: str = "") -> int:
        """Aborts unfinished writes in it, or in its folder `below`; returns how many."""


@runtime_checkable
class ServerStore(ObjectStore, Protocol):
    """A store on a server, where no folder can be renamed: packages are sent to it file by file."""

    attempts: int
    """How often a request is tried."""

    def put_file(self, name: str, path: Path, *, over: str | None) -> Sent | None:
        """Sends a file of a package: over the one that has the tag `over`, or as a new one (None).

        Returns None when something else is there: this stops late writes of a process that has lost its claim.
        """

    def seal(self, name: str, content: bytes) -> bool:
        """Writes the small file that completes a package, unless it exists; returns whether it did."""

    def tag_of(self, path: Path) -> str:
        """The tag that a file has once `put_file` has sent it, where tags are hashes."""
