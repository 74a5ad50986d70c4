"""log.txt: what a command says, whether or not the screen shows it."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from singer_ray.layout import LOG

MARK = "# "
"""Prefix of the lines with which each command begins its part of a log."""
_LOGS: list[RunLog] = []
"""Those of the running commands, the innermost last."""


class RunLog:
    """Lines with their times: kept in memory until the output folder is known, then written to its log.txt.

    `head` returns the first lines; with `verbose`, notes go to the screen too. A log that cannot be written stops no
    command: the lines are lost.
    """

    def __init__(self, head: Callable[[], Sequence[str]], *, verbose: bool = False) -> None:
        self._head, self.verbose = head, verbose
        self._waiting: list[str] = []
        self._file: int | None = None
        self._lock = threading.Lock()

    def write(self, text: str) -> None:
        """Appends the lines of a text."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        lines = [f"{stamp}  {line.rstrip()}\n" for line in text.splitlines() if line.strip()]
        with self._lock:
            if self._file is None:
                self._waiting += lines
            else:
                self._append(lines)

    def open(self, folder: Path) -> None:
        """From now on the log is in `folder`, after what earlier commands wrote there."""
        begin = time.strftime("%Y-%m-%d %H:%M:%S %z")
        with self._lock, contextlib.suppress(OSError):
            if self._file is not None:
                os.close(self._file)
                self._file = None
            # The folder may come from someone else: never follow a link there to a file of ours.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(folder / LOG, flags, 0o644)
            self._append([f"{MARK}{line}\n" for line in (begin, *self._head())] + self._waiting)
            self._waiting = []

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _append(self, lines: Sequence[str]) -> None:
        assert self._file is not None
        with contextlib.suppress(OSError):
            os.write(self._file, "".join(lines).encode("utf-8", "backslashreplace"))


@contextlib.contextmanager
def logged(head: Callable[[], Sequence[str]], *, verbose: bool = False) -> Iterator[RunLog]:
    """Keeps a log while the block runs; `log_into` says where."""
    log = RunLog(head, verbose=verbose)
    _LOGS.append(log)
    try:
        yield log
    finally:
        _LOGS.remove(log)
        log.close()


def log_into(folder: Path) -> None:
    """Moves the command's log, if it keeps one, into `folder`, earlier lines included."""
    if _LOGS:
        _LOGS[-1].open(folder)


def keep(text: Callable[[], str]) -> None:
    """Writes a text to the command's log, if it keeps one."""
    if _LOGS:
        _LOGS[-1].write(text())


def note(text: str) -> None:
    """Writes a line to the log, and with --verbose to the screen (standard error)."""
    if _LOGS:
        _LOGS[-1].write(text)
        if _LOGS[-1].verbose:
            print(text.rstrip(), file=sys.stderr, flush=True)


def is_log(path: Path) -> bool:
    """Whether a file is a log of ours."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.readline().startswith(MARK) and file.readline().startswith(f"{MARK}singer_ray ")
    except OSError:
        return False
