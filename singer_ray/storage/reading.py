"""Local files that may be hostile: only regular ones are read, and none that a link leads to elsewhere."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, BinaryIO

from singer_ray.errors import UserError, printable

CHUNK = 1 << 22


class UnfitError(UserError):
    """A file that is refused for what it is: trying again does not help."""


def opened(path: Path) -> BinaryIO:
    """Opens a regular file for reading. It never waits for a pipe's writer or for a device.

    Raises OSError as `open` does, and UnfitError for anything but a regular file.
    """
    _require_regular(path, os.stat(path).st_mode)  # merely opening a device may have effects
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        _require_regular(path, os.fstat(handle).st_mode)  # it may have been replaced since
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def stays_inside(path: Path, root: Path) -> Path:
    """Where `path` really is. Raises UnfitError when links lead out of `root`, OSError when they lead in a circle."""
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(root)):
        raise UnfitError(
            f"{printable(path)} leads out of {printable(root)}, by a link to {printable(real)}. Replace the link by "
            "what is meant, or remove it."
        )
    return real


def hashed(stream: IO[bytes] | Any, take: Callable[[bytes], object] = lambda chunk: None) -> tuple[int, str]:
    """Size and SHA-256 of what is left in a stream; each piece is handed to `take`."""
    size, digest = 0, hashlib.sha256()
    while chunk := stream.read(CHUNK):
        digest.update(chunk)
        take(chunk)
        size += len(chunk)
    return size, digest.hexdigest()


def _require_regular(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise UnfitError(
            f"{printable(path)} is not a regular file (but a pipe, a device or the like). Replace it by a "
            "file, or remove it."
        )
