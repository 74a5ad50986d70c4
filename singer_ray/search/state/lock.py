"""The right to drive the search in a folder: one process of a machine has it at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from singer_ray.errors import UserError
from singer_ray.layout import LOCK


class FolderLock:
    """Holds OUT for the block, and makes it where there is none. An OUT that stays empty is left as it was before.

    The lock ends with its process. Raises UserError when another process has it.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._made = False
        self._lock: FileLock | None = None

    def __enter__(self) -> Self:
        self._made = not self.out.exists()
        self.out.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.out)
        return self

    def __exit__(self, *error: object) -> None:
        assert self._lock is not None
        if [path.name for path in self.out.iterdir()] == [LOCK]:
            (self.out / LOCK).unlink()
            if self._made:
                self.out.rmdir()
        self._lock.release()


def refuse_driven(out: Path) -> None:
    """Raises UserError when a process drives a search in OUT."""
    if (out / LOCK).exists():
        _locked(out).release()


def _locked(out: Path) -> FileLock:
    """Takes the lock, without waiting for it."""
    lock = FileLock(out / LOCK, fallback_to_soft=False)  # a soft lock would outlive a process that is killed
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise UserError(
            f"Another process drives the search in {out}. Watch it with --status {out}, or wait until it has ended."
        ) from error
    except OSError as error:
        if not (out / LOCK).is_symlink():
            raise
        raise UserError(f"{out / LOCK} is a link, which no search makes. Remove it, if you trust {out}.") from error
    return lock
