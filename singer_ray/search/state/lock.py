"""The right to drive the search in a folder: of the processes of one machine, one at a time has it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO, Self

from singer_ray.errors import UserError

LOCK = "driver.lock"


class FolderLock:
    """Holds OUT for the block, and makes it where there is none. An OUT that stays empty is left as it was found.

    Raises UserError when another process has it.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._made = False
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        self._made = not self.out.exists()
        while self._file is None:
            self.out.mkdir(parents=True, exist_ok=True)
            file = _locked(self.out)
            if os.path.exists(self.out / LOCK) and os.path.samestat(os.fstat(file.fileno()), os.stat(self.out / LOCK)):
                self._file = file
            else:  # whoever held it has removed it since it was opened
                file.close()
        return self

    def __exit__(self, *error: object) -> None:
        assert self._file is not None
        if [path.name for path in self.out.iterdir()] == [LOCK]:
            (self.out / LOCK).unlink()
            if self._made:
                self.out.rmdir()
        self._file.close()


def refuse_driven(out: Path) -> None:
    """Raises UserError when a process drives a search in OUT."""
    if (out / LOCK).exists():
        _locked(out).close()


def _locked(out: Path) -> IO[str]:
    try:
        file = os.fdopen(os.open(out / LOCK, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666), "a+")
    except OSError as error:
        if not (out / LOCK).is_symlink():
            raise
        raise UserError(f"{out / LOCK} is a link, which no search makes. Remove it, if you trust {out}.") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise UserError(
            f"Another process drives the search in {out}. Watch it with --status {out}, or wait until it has ended."
        ) from error
    return file
