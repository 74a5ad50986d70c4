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
"""Before the lines with which each command begins its part of a log."""
_LOGS: list[RunLog] = []
"""Of the commands that run, the innermost last."""


class RunLog:
    """Lines with their times: kept here until the folder of the result is known, then in its log.txt.

    `head` gives the lines that stand first; with `verbose`, notes are for the screen too. A log that cannot be written
    ends nothing: it is left as it is.
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
        """From now on the log is in `folder`, behind what an earlier command left there."""
        begin = time.strftime("%Y-%m-%d %H:%M:%S %z")
        with self._lock, contextlib.suppress(OSError):
            if self._file is not None:
                os.close(self._file)
                self._file = None
            # A folder may come from someone else: its log is no link to a file of ours.
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
    """Within, a command keeps a log; `log_into` says where."""
    log = RunLog(head, verbose=verbose)
    _LOGS.append(log)
    try:
        yield log
    finally:
        _LOGS.remove(log)
        log.close()


def log_into(folder: Path) -> None:
    """The command's log, if it keeps one, is in `folder` from now on, earlier lines included."""
    if _LOGS:
        _LOGS[-1].open(folder)


def keep(text: Callable[[], str]) -> None:
    """A text for the log of the command, if it keeps one."""
    if _LOGS:
        _LOGS[-1].write(text())


def note(text: str) -> None:
    """A line for the log, and for the screen (standard error) with --verbose."""
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
