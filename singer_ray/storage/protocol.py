"""What a store of files has to offer: one class for each kind of place (see README.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, runtime_checkable


@dataclass(frozen=True)
class Object:
    """What a listing says of a file."""

    size: int
    """Bytes."""
    tag: str
    """Changes with the content: on most servers a hash of it. Empty where a store would have to read the file."""


@dataclass(frozen=True)
class Seen:
    """A small file, as one look found it."""

    content: bytes
    tag: str
    """Changes with the content."""
    age: float
    """Seconds since it was written, by the clock of the store itself."""


@dataclass(frozen=True)
class Sent:
    """A file that a server has taken."""

    tag: str
    """The one that the server gave it."""
    own: str
    """The one that its content should have, where tags are hashes."""
    sha256: str
    """Of what was sent."""

    @property
    def confirmed(self) -> bool:
        """Whether the tag proves that the content has come as it was sent."""
        return self.tag == self.own


class LeaseFiles(Protocol):
    """Small files written under a condition. All methods raise UserError when the store cannot be reached."""

    def look(self, name: str) -> Seen | None:
        """The file, None when there is none."""

    def create(self, name: str, content: bytes) -> bool:
        """Writes a file unless there is one; whether it did."""

    def swap(self, name: str, content: bytes, tag: str) -> bool:
        """Writes a file over that of `tag`, unless it has changed; whether it did."""

    def delete(self, names: Sequence[str], tag: str | None = None) -> None:
        """Removes files, as far as they are there; with `tag` unless they have changed."""


@runtime_checkable
class ObjectStore(LeaseFiles, Protocol):
    """Files below one address; names are relative to it, with `/` between parts, and do not lead out of it.

    Stores are made with an Address and Settings, may be used by several threads and be sent to other processes. All
    methods raise UserError, which names the address, when the store cannot be reached or refuses.
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
        """The same for the folder `name` in it."""

    def get(self, name: str) -> bytes | None:
        """The content of a file, None when there is none."""

    def stream(self, name: str, take: Callable[[bytes], object]) -> tuple[int, str] | None:
        """Size and SHA-256 of a file, read once in pieces that `take` gets; None when there is none."""

    def require(self, name: str) -> None:
        """Raises UserError for a file that will not be read, whatever is in it."""

    def list(self, below: str = "") -> Mapping[str, Object]:
        """All files in it, or in its folder `below`, by their names in it."""

    def folders(self, below: str = "") -> Sequence[str]:
        """The names of the folders right in it, or in its folder `below`, sorted."""

    def put(self, name: str, content: bytes) -> None:
        """Writes a file whole or not at all, over an earlier one."""

    def copy(self, name: str, target: str) -> None:
        """Copies a file within the store, over an earlier one."""

    def abort_uploads(self, below: str = "") -> int:
        """Ends writes that were left unfinished in it, or in its folder `below`; returns how many."""


@runtime_checkable
class ServerStore(ObjectStore, Protocol):
    """A store on a server, where no folder can be renamed: packages are sent to it file by file."""

    attempts: int
    """How often a request is tried."""

    def put_file(self, name: str, path: Path, *, over: str | None) -> Sent | None:
        """Sends a file of a package over the one of the tag `over` (None: where there is none).

        None when something else is there: the condition fences late writes of a process that has lost its claim.
        """

    def seal(self, name: str, content: bytes) -> bool:
        """Writes the small file that makes a package whole, unless there is one; whether it did."""

    def tag_of(self, path: Path) -> str:
        """The tag that a file has once `put_file` has sent it, where tags are hashes."""
