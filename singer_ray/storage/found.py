"""What a store says of a file that it holds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Object:
    """What a listing says of an object."""

    size: int
    """Bytes."""
    tag: str
    """Its ETag: a hash of the content on most servers, see `tag_of`."""


@dataclass(frozen=True)
class Seen:
    """A small file, as one look found it."""

    content: bytes
    tag: str
    """Changes with the content."""
    age: float
    """Seconds since it was written, by the clock of the store itself."""
