"""What becomes of a command's folder when the disk takes no more, or Ctrl-C comes."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from singer_ray.console.outputs import Interrupted, disk_error, guarded, prepare_out
from singer_ray.errors import UserError


class SafetensorError(Exception):
    """As safetensors words what the system said."""


def within(out: Path, act: Callable[[], object], advice: str | None = None, *, resume: bool = False) -> None:
    """A command that readies its folder and does something in it."""
    with guarded(lambda folder: advice):
        prepare_out(out, overwrite=False, resume=resume)
        act()


def failing(error: BaseException, file: Path | None = None) -> Callable[[], None]:
    def fail() -> None:
        if file is not None:
            file.write_text("half")
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "x"), "{out} cannot be written: No space left on device. Free some space there."),
        (OSError(errno.EDQUOT, "x"), "{out} cannot be written: Disk quota exceeded. Free some space there."),
        (OSError(errno.EROFS, "x", "{out}/a"), "{out}/a cannot be written: Read-only file system. Make the"),
        (PermissionError(errno.EACCES, "x", "{out}/a"), "{out}/a cannot be written: Permission denied."),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "{out} cannot be written: No space left"),
    ],
)
def test_a_disk_that_takes_no_more_is_one_line_and_leaves_nothing(tmp_path: Path, error: Exception, said: str) -> None:
    out = tmp_path / "out"
    if isinstance(error, OSError) and error.filename:
        error = type(error)(error.errno, "x", error.filename.format(out=out))
    with pytest.raises(UserError) as caught:
        within(out, failing(error, out / "half.txt"))
    assert str(caught.value).startswith(said.format(out=out))
    assert "another folder with --out" in str(caught.value)
    assert not out.exists()


def test_what_can_go_on_stays_and_the_line_says_how(tmp_path: Path) -> None:
    out = tmp_path / "out"
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(UserError, match="Then go on with: resume it"):
        within(out, failing(full, out / "checkpoint.pt"), "resume it")
    assert (out / "checkpoint.pt").exists()
    with pytest.raises(Interrupted, match=r"^Go on with: resume it$"):
        within(out, failing(KeyboardInterrupt()), "resume it", resume=True)
    assert (out / "checkpoint.pt").exists()


def test_a_folder_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def act() -> None:
        shutil.rmtree(out)
        (out / "result.json").write_text("{}")

    with pytest.raises(UserError, match="is gone: it was moved or deleted while the command ran"):
        within(out, act)


def test_ctrl_c_before_anything_has_come_leaves_nothing_but_results_stay(tmp_path: Path) -> None:
    for name, stays in (("log.txt", False), ("clean", True)):
        out = tmp_path / name
        with pytest.raises(KeyboardInterrupt):
            within(out, failing(KeyboardInterrupt(), out / name))
        assert out.exists() == stays


def test_a_folder_that_was_there_is_emptied_not_removed_and_others_are_left_alone(tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    for folder in (out, other):
        folder.mkdir()
    (other / "thesis.tex").write_text("years of work")

    def act() -> None:
        (out / "link").symlink_to(other)
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        within(out, act)
    assert list(out.iterdir()) == []
    assert (other / "thesis.tex").exists()


def test_faults_of_reading_elsewhere_and_bugs_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    missing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/data/image.png")
    for error in (missing, ValueError("errno"), ConnectionRefusedError(errno.ECONNREFUSED, "refused")):
        assert disk_error(error, [tmp_path]) is None
    with pytest.raises(ValueError, match="a bug"):
        within(tmp_path / "out", failing(ValueError("a bug")))
    assert (tmp_path / "out").is_dir()  # with its log
