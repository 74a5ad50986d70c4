"""The commands as people meet them: help, dry runs, and what they say to wrong input."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from singer_ray.cli import run_command
from singer_ray.config import Config, field_names

COMMANDS = ("train", "tune", "analyze", "evaluate", "teacher", "digits")
UNNAMED = {"evaluate": ["demo"]}
"""Arguments without a name that a command needs."""


def run(name: str, *arguments: str) -> int:
    door: Any = importlib.import_module(f"singer_ray.{name}")
    return run_command(door.COMMAND, door.main, arguments)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_knob(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(name, "--help")
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert [knob for knob in field_names() if f"--{knob.replace('_', '-')}" not in shown] == []
    door: Any = importlib.import_module(f"singer_ray.{name}")
    assert door.__doc__.splitlines()[0].split()[0] in shown
    assert all(f"--{short}" in shown for short in door.COMMAND.shortcuts)
    assert all(flag in shown for flag in ("--out", "--overwrite", "--dry-run"))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_dry_run_prints_a_preset_and_writes_nothing(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, *UNNAMED.get(name, []), "--dry-run", "--method.rank=7", "--seed", "3") == 0
    shown = capsys.readouterr().out
    config = Config.model_validate(yaml.safe_load(shown))
    assert (config.method.rank, config.seed) == (7, 3)
    assert "# would" in shown
    assert list(Path().iterdir()) == []


def test_arguments_without_a_name_stand_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run("evaluate", "demo", "--seed", "3", "demo-clean", "--dry-run", "runs/x", "--teacher.layers", "2", "4") == 0
    )
    shown = capsys.readouterr().out
    assert "would evaluate demo, demo-clean, runs/x," in shown
    config = Config.model_validate(yaml.safe_load(shown))
    assert (config.seed, config.teacher.layers) == (3, (2, 4))


def test_short_names_are_the_dotted_ones(capsys: pytest.CaptureFixture[str]) -> None:
    run("tune", "--dry-run", "--trials", "5", "--time-budget", "60", "--concurrent=2", "--space", "singer")
    config = Config.model_validate(yaml.safe_load(capsys.readouterr().out))
    assert (config.search.trials, config.search.time_budget, config.search.concurrent) == (5, 60.0, 2)


def test_layers_take_several_values(capsys: pytest.CaptureFixture[str]) -> None:
    run("train", "--dry-run", "--teacher.layers", "2", "4", "--student.layers", "0", "2")
    config = Config.model_validate(yaml.safe_load(capsys.readouterr().out))
    assert (config.teacher.layers, config.student.layers) == ((2, 4), (0, 2))


def test_python_dash_m_lists_the_commands() -> None:
    done = subprocess.run([sys.executable, "-m", "singer_ray"], capture_output=True, text=True, check=True)
    assert all(f"python -m singer_ray.{name}" in done.stdout for name in COMMANDS)


def test_a_real_process_ends_with_2_and_one_line() -> None:
    command = [sys.executable, "-m", "singer_ray.train", "--workers", "64", "--out", "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "--workers 64 needs 64 CPU; this Ray cluster can never offer more than" in done.stderr
    assert not Path("out").exists()
