"""Files that are there whole or not at all: written beside their place under an unpredictable name, then renamed."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

DRAFT = ".part"
"""Suffix of a file that is being written."""


def write_whole(path: Path, content: bytes | str, *, synced: bool = False) -> None:
    """Writes a file (text in UTF-8), whole or not at all. It replaces an earlier file; a link is replaced, not
    followed.

    Args:
        synced: waits until it is on the disk, so that a power cut leaves the earlier file or this one.

    Raises OSError. The folder may be a stranger's, who could place a link under a predictable draft name.
    """
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    draft = new_draft(path)
    handle = _opened(draft)
    try:
        with open(handle, "wb") as file:
            file.write(data)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if synced:
        sync(path.parent)


@contextlib.contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """Yields a new, empty file beside `path` for a library to fill, and renames it at the end. Raises OSError."""
    draft = new_draft(path)
    os.close(_opened(draft))
    try:
        yield draft
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def new_draft(path: Path) -> Path:
    """An unpredictable name beside `path` for a file that will take its place."""
    return path.with_name(f".{path.name[:80]}.{uuid.uuid4().hex}{DRAFT}")


def _opened(draft: Path) -> int:
    return os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
