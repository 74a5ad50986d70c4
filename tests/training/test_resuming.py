"""A run that a full disk ended: what is left of it, and how it goes on from its folder alone."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from singer_ray import distill, report, train
from singer_ray.cli import run_command
from singer_ray.config import load_preset
from singer_ray.config.tree import config_of_file
from singer_ray.errors import UserError
from singer_ray.tracking.history import read_history
from singer_ray.training import checkpoint
from singer_ray.training.launch import Inputs
from singer_ray.training.resuming import config_of_run, require_own, resume_command, resumed_config
from tests.conftest import SMALL

ARGUMENTS = [part for name, value in SMALL.items() for part in (f"--{name}", str(value))]


@dataclass(frozen=True)
class Cut:
    """A run whose second checkpoint found no room."""

    folder: Path
    status: int
    error: str


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Cut:
    folder = tmp_path_factory.mktemp("runs") / "a run"
    saved, written = checkpoint.save, []

    def save(out: Path, state: dict[str, Any]) -> None:
        written.append(out)
        if len(written) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        saved(out, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", save)
        status, error = trained("--out", str(folder), *ARGUMENTS, "--quiet")
    return Cut(folder, status, error)


def trained(*arguments: str) -> tuple[int, str]:
    """Exit status and standard error of the command."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = run_command(train.COMMAND, train.main, arguments)
    return status, said.getvalue()


def copied(cut: Cut, to: Path) -> Path:
    return Path(shutil.copytree(cut.folder, to))


@pytest.mark.slow
def test_a_full_disk_is_one_line_that_says_how_to_go_on_and_nothing_is_half_written(cut: Cut) -> None:
    assert cut.status == 2
    assert cut.error == (
        f"python -m singer_ray.train: {cut.folder} cannot be written: No space left on device. Free some space there. "
        f"Then go on with: python -m singer_ray.train --resume '{cut.folder}'\n"
    )
    names = {path.name for path in cut.folder.iterdir()}
    assert names == {"checkpoint.pt", "config.yaml", "curves.png", "history.csv", "log.txt", "run.json", "tensorboard"}
    assert list(read_history(cut.folder)) == [1]


@pytest.mark.slow
def test_the_folder_knows_its_configuration_in_either_order_of_arguments(
    cut: Cut, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(cut.folder)
    for arguments in (
        ["--resume", folder],
        ["--out", folder, "--resume"],
        ["--resume", "--out", folder],
        [f"--resume={folder}"],
        ["--resume", folder, "--preset", f"{folder}/config.yaml"],
        ["--out", folder, *ARGUMENTS, "--resume"],
        ["--resume", folder, "--trackers", "tensorboard", "--train.threads", "1"],
    ):
        assert trained(*arguments, "--dry-run") == (0, "")
        config = config_of_file(yaml.safe_load(capsys.readouterr().out), "what was printed")
        assert config == load_preset(f"{folder}/config.yaml")


@pytest.mark.slow
def test_a_run_of_an_older_version_goes_on_as_it_was(cut: Cut, tmp_path: Path) -> None:
    old = copied(cut, tmp_path / "old")
    shutil.rmtree(old / "tensorboard")
    for name in ("history.csv", "run.json", "curves.png", "log.txt"):
        (old / name).unlink()
    tree = yaml.safe_load((old / "config.yaml").read_text())
    del tree["train"]["trackers"]
    (old / "config.yaml").write_text(yaml.safe_dump(tree))
    assert config_of_run(old).train.trackers == ()
    assert trained("--resume", str(old)) == (0, "")
    rows = read_history(old)
    assert list(rows) == [1, 2]  # the first from its checkpoint
    assert rows[1]["train/loss"] == read_history(cut.folder)[1]["train/loss"]
    assert rows[2]["lr"] < rows[1]["lr"]
    assert "test/miou" in rows[2]
    assert not (old / "tensorboard").exists()
    assert {"report.html", "curves.png", "result.json", "student"} <= {path.name for path in old.iterdir()}
    assert "epoch 2/2" in (old / "log.txt").read_text()
    page = (old / "report.html").read_text()
    assert all(f"<h2>{title}</h2>" in page for title in ("Curves", "Scores", "Artifacts", "Use it", "Setting"))
    assert len(re.findall(r'<img alt="\w+" src="data:image/', page)) == 2
    assert run_command(report.COMMAND, report.main, [str(old), "--out", str(tmp_path / "page.html")]) == 0
    assert "Training report" in (tmp_path / "page.html").read_text()


@pytest.mark.slow
def test_from_python_what_cannot_be_is_refused(cut: Cut, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leave out out, preset"):
        distill(resume=cut.folder, out=tmp_path / "x", preset="digits")
    with pytest.raises(UserError, match=r"with method\.rank 16; 3 is given"):
        distill(resume=cut.folder, settings={"method.rank": 3})
    with pytest.raises(UserError, match=r"with teacher\.name demo; demo-clean is given"):
        distill("demo-clean", resume=cut.folder)
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_what_was_given_in_python_is_asked_for_again(cut: Cut, tmp_path: Path) -> None:
    own = copied(cut, tmp_path / "own")
    config = load_preset(str(own / "config.yaml")).override({"teacher.name": "own:ViT", "data.source": "own"})
    (own / "config.yaml").write_text(config.to_yaml())
    assert resume_command(own, config) == f"singer_ray.distill(resume={str(own)!r}, teacher=..., data=...) in Python"
    with pytest.raises(UserError, match=r"given its teacher and data in Python, which it needs again\. Use singer_ray"):
        require_own(own, resumed_config(own, {}), Inputs())
    assert trained("--resume", str(own))[0] == 2


@pytest.mark.slow
def test_what_a_resume_may_change(cut: Cut) -> None:
    config = resumed_config(cut.folder, {"train.trackers": (), "train.threads": 2})
    assert (config.train.trackers, config.train.threads) == ((), 2)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk that has room for one checkpoint and a draft of half of the next."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1900k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can be mounted by root alone")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.slow
def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    status, error = trained("--out", str(small_disk / "run"), *ARGUMENTS, "--quiet")
    assert status == 2
    assert error.count("\n") == 1, error
    assert "cannot be written: No space left on device. Free some space there. Then go on with" in error
    assert checkpoint.load(small_disk / "run")["step"] == 3  # the first epoch's, whole
    assert not [path for path in small_disk.rglob("*.part")]
