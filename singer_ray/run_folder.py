"""The folder that a command fills: where it is, whether it may be used, and the log in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from singer_ray.errors import UserError
from singer_ray.outputs import LOG, claim

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
    """Within, what LoggedConsoles print goes into a log as well; `log_into` says where that is."""
    log = RunLog(head, verbose=verbose)
    _LOGS.append(log)
    try:
        yield log
    finally:
        _LOGS.remove(log)
        log.close()


def current_log() -> RunLog | None:
    """The log of the innermost command that keeps one."""
    return _LOGS[-1] if _LOGS else None


def log_into(folder: Path) -> None:
    """The command's log, if it keeps one, is in `folder` from now on, earlier lines included."""
    if _LOGS:
        _LOGS[-1].open(folder)


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


def default_out(command: str) -> Path:
    """Where a command writes that was given no --out."""
    return Path("runs") / f"{command}-{time.strftime('%Y%m%d-%H%M%S')}"


def prepare_out(folder: Path, *, overwrite: bool, resume: bool = False) -> Path:
    """The folder of a run, made or emptied. Raises UserError for one that holds something and may not be replaced."""
    check_out(folder, overwrite=overwrite, resume=resume)
    claim(folder, existed=folder.exists() and not overwrite, resumed=resume)
    if overwrite and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    log_into(folder)
    return folder


def check_out(folder: Path, *, overwrite: bool, resume: bool = False) -> None:
    """Raises UserError when `folder` cannot become the folder of a run."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder} is a file. Give a folder.")
    parent = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not os.access(parent, os.W_OK):
        raise UserError(f"--out {folder} cannot be written: no permission for {parent}. Give another folder.")
    if not folder.exists() or not any(folder.iterdir()):
        return
    ours = any((folder / mark).exists() for mark in ("config.yaml", "result.json", "study.journal"))
    ours = ours or is_log(folder / LOG)
    if overwrite and not ours:
        raise UserError(
            f"--out {folder} holds files that are not a result of singer_ray: --overwrite will not delete them. "
            "Give another folder."
        )
    if not overwrite and not resume:
        raise UserError(
            f"--out {folder} is not empty. Give another folder, or --overwrite to replace the result in it."
        )
