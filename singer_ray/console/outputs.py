"""The output folder of a command: what may become one, and what is left of it after an error, Ctrl-C or a full disk."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from singer_ray.console.runlog import is_log, log_into
from singer_ray.errors import UserError, printable
from singer_ray.layout import CONFIG, JOURNAL, LOG, RESULT, RUN
from singer_ray.storage.address import expanded_as

NOTES = {CONFIG, LOG, RUN}
"""What is in a folder before the command has produced anything."""
START_AGAIN = "Then start again, or give another folder with --out."
ALWAYS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
"""Only writing fails with these."""
ROOM = {errno.ENOSPC, errno.EDQUOT}
WITHIN = {errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO, errno.ESTALE}
"""Reading may fail with these too, so they count only inside the output folder."""
_TOLD = re.compile(
    r"(?:os error|[Ee]rrno)\s*(\d+)|(No space left on device)|(Disk quota exceeded)|(Read-only file system)"
)


def default_out(command: str) -> Path:
    """Where a command writes when --out is not given."""
    return Path("runs") / f"{command}-{time.strftime('%Y%m%d-%H%M%S')}"


def given_folder(given: str | Path, argument: str = "out") -> Path:
    """A folder given in Python, with `~`, $NAME and ${NAME} expanded. Raises UserError."""
    return Path(expanded_as(str(given), argument))


def prepare_out(folder: Path, *, overwrite: bool, resume: bool = False) -> Path:
    """Creates or empties the folder of a run. Raises UserError for one with content that may not be replaced."""
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
    ours = any((folder / mark).exists() for mark in (CONFIG, RESULT, JOURNAL))
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


class Interrupted(KeyboardInterrupt):
    """Ctrl-C; the message says how to go on."""


@dataclass
class _Claim:
    """A folder that a command has prepared for its result."""

    folder: Path
    existed: bool
    resumed: bool


@dataclass
class _Guard:
    claims: list[_Claim] = field(default_factory=list)


_GUARDS: list[_Guard] = []


def claim(folder: Path, *, existed: bool, resumed: bool) -> None:
    """Records that a command writes into `folder`, which was empty before (or held the run that is `resumed`)."""
    if _GUARDS:
        _GUARDS[-1].claims.append(_Claim(folder, existed, resumed))


@contextlib.contextmanager
def guarded(resume_command: Callable[[Path], str | None] = lambda folder: None) -> Iterator[None]:
    """While the block runs, a full disk becomes a UserError, and no half-written result stays that cannot be resumed.

    `resume_command` returns the command that continues what is in a folder, None when nothing can be continued: then
    everything that the command made in its claimed folders is removed. Ctrl-C becomes Interrupted, which names that
    command. An unforeseen error leaves the folder as it is, with its log.
    """
    guard = _Guard()
    _GUARDS.append(guard)
    try:
        yield
    except UserError:
        _discard(guard, resume_command)
        raise
    except Interrupted:
        raise
    except KeyboardInterrupt as error:
        advice = _advice(guard, resume_command)
        _discard(guard, resume_command, only_idle=True)
        if advice is None:
            raise
        raise Interrupted(f"Go on with: {advice}") from error
    except Exception as error:
        broken = disk_error(error, [each.folder for each in guard.claims])
        if broken is None:
            raise
        advice = _advice(guard, resume_command)
        _discard(guard, resume_command)
        raise UserError(f"{broken} {f'Then go on with: {advice}' if advice else START_AGAIN}") from error
    finally:
        _GUARDS.remove(guard)


def disk_error(error: BaseException, folders: list[Path]) -> str | None:
    """A write error as a sentence, with what to do first; None for any other error.

    `folders` are the output folders: an unreadable or vanished file counts only inside one of them.
    """
    cause: BaseException | None = error
    while cause is not None:
        number = _errno(cause)
        name = getattr(cause, "filename", None)
        path = Path(os.fsdecode(name)) if isinstance(name, (str, bytes, os.PathLike)) else None
        ours = next((f for f in folders if path is not None and _inside(path, f)), None)
        if number is not None and (number in ALWAYS or (number in WITHIN and ours is not None)):
            return _sentence(number, path, ours or (folders[0] if folders else None))
        cause = cause.__cause__
    return None


def _sentence(number: int, path: Path | None, folder: Path | None) -> str:
    place = printable(path or folder or "The result")
    if folder is not None and not folder.exists():
        return f"{printable(folder)} is gone: it was moved or deleted while the command ran. Leave it in place."
    why = f"{place} cannot be written: {os.strerror(number)}."
    if number in ROOM:
        return f"{why} Free some space there."
    return f"{why} Make the folder writable."


def _errno(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    told = _TOLD.search(str(error))  # from libraries that write files themselves, such as safetensors
    if told is None:
        return None
    number, room, quota, _ = told.groups()
    return int(number) if number else errno.ENOSPC if room else errno.EDQUOT if quota else errno.EROFS


def _inside(path: Path, folder: Path) -> bool:
    return folder.absolute() in (path.absolute(), *path.absolute().parents)


def _advice(guard: _Guard, resume_command: Callable[[Path], str | None]) -> str | None:
    return next((advice for each in guard.claims if (advice := resume_command(each.folder)) is not None), None)


def _discard(guard: _Guard, resume_command: Callable[[Path], str | None], *, only_idle: bool = False) -> None:
    """Removes what was made in the claimed folders; `only_idle` spares those that hold more than NOTES."""
    for each in guard.claims:
        if each.resumed or resume_command(each.folder) is not None:
            continue
        there = {path.name for path in each.folder.iterdir()} if each.folder.is_dir() else set()
        if only_idle and not there <= NOTES:
            continue
        for name in there:
            path = each.folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()
        if not each.existed:
            with contextlib.suppress(OSError):
                each.folder.rmdir()
