"""The commands as people meet them: help, dry runs, and what they say to wrong input."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import singer_ray
import singer_ray.__main__ as front
from singer_ray import evaluate, train
from singer_ray.cli import run_command
from singer_ray.config import field_names
from singer_ray.config.tree import config_of_file
from singer_ray.options.command import own_options
from singer_ray.options.help import COMMON, blocks
from singer_ray.options.parsing import parse
from singer_ray.resources import shipped_names

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


def shown_by(name: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command prints that ends well before it does anything."""
    with pytest.raises(SystemExit) as stopped:
        run(name, *arguments)
    assert stopped.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_setting(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = shown_by(name, capsys, "--help-all")
    assert [setting for setting in field_names() if f"--{setting} " not in shown] == []
    door: Any = importlib.import_module(f"singer_ray.{name}")
    assert door.__doc__.splitlines()[0].split()[0] in shown
    assert all(f"--{short}" in shown for short in door.COMMAND.shortcuts)
    assert all(flag in shown for flag in ("--out", "--overwrite", "--dry-run"))


@pytest.mark.parametrize("name", [*COMMANDS, "export", "report"])
def test_help_is_one_screen(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    shown = shown_by(name, capsys, "--help")
    assert 10 < len(shown.splitlines()) <= 50
    door: Any = importlib.import_module(f"singer_ray.{name}")
    assert [option.name for option in own_options(door.COMMAND).values() if f"--{option.name}" not in shown] == []
    assert all(f"--{setting} " in shown for setting in COMMON.get(name, ()))
    assert "Required." in shown or not door.COMMAND.positional


def test_help_by_block_holds_that_block_and_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    settings = field_names()
    for block in (b for b in blocks() if b):
        shown = shown_by("train", capsys, "--help", block)
        inside = [name for name in settings if name.rpartition(".")[0] == block]
        assert [name for name in settings if f"--{name} " in shown] == inside
        assert inside, block


@pytest.mark.slow
def test_help_of_one_option(capsys: pytest.CaptureFixture[str]) -> None:
    shown = " ".join(shown_by("tune", capsys, "--help", "method.rank").split())
    assert "--method.rank N Rank of the adapter: at least the number of artifact directions" in shown
    assert "Allowed: a whole number, at least 1 Default: 16 (preset demo) In a file: method: {rank: VALUE}" in shown
    assert "singer, none, vitkd, clip" in shown_by("tune", capsys, "--help=method.refiner")
    assert "--method.outlier_quantile" in shown_by("tune", capsys, "--help", "outlier-quantile")
    assert "--search.time_budget" in shown_by("tune", capsys, "--help", "time-budget")
    assert "--dry-run" in shown_by("tune", capsys, "--help", "dry_run")
    assert all(f"--{name} " in shown_by("tune", capsys, "--help", name) for name in field_names())


@pytest.mark.slow
@pytest.mark.parametrize("word", ["false", "False", "no", "0", "OFF"])
def test_booleans_are_written_as_people_write_them(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = {"false": "true", "False": "TRUE", "no": "yes", "0": "1", "OFF": "on"}[word]
    run("train", "--dry-run", said, f"--method.radial={word}", "--export.program", said, "--overwrite", word)
    config = config_of_file(yaml.safe_load(capsys.readouterr().out), "what was printed")
    assert (config.method.radial, config.export.program) == (False, True)
    run("evaluate", "--dry-run", "demo", "--method.radial", word, "--overwrite", "demo-clean", "--export.program")
    shown = capsys.readouterr().out
    assert "demo, demo-clean" in shown
    config = config_of_file(yaml.safe_load(shown), "what was printed")
    assert (config.method.radial, config.export.program) == (False, True)


def test_dashes_and_underscores_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    run("tune", "--dry_run", "--time_budget", "60", "--method.outlier-quantile", "0.9", "--search.startup_trials=3")
    config = config_of_file(yaml.safe_load(capsys.readouterr().out), "what was printed")
    assert (config.search.time_budget, config.method.outlier_quantile, config.search.startup_trials) == (60, 0.9, 3)


def test_values_may_look_like_options_behind_an_equals_sign() -> None:
    config, _ = parse(train.COMMAND, ["--data.train=--odd", "--data.source", "imagefolder", "--data.val", "None"])
    assert (config.data.train, config.data.val) == ("--odd", None)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_dry_run_prints_a_preset_and_writes_nothing(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, *UNNAMED.get(name, []), "--dry-run", "--method.rank=7", "--seed", "3") == 0
    shown = capsys.readouterr().out
    config = config_of_file(yaml.safe_load(shown), "what was printed")
    assert (config.method.rank, config.seed) == (7, 3)
    assert "# would" in shown
    assert list(Path().iterdir()) == []


def test_arguments_without_a_name_stand_anywhere() -> None:
    words = ["demo", "--seed", "3", "demo-clean", "--dry-run", "runs/x", "--teacher.layers", "2", "4"]
    config, flags = parse(evaluate.COMMAND, words)
    assert flags.networks == ("demo", "demo-clean", "runs/x")
    assert flags.dry_run
    assert (config.seed, config.teacher.layers) == (3, (2, 4))


def test_short_names_are_the_dotted_ones(capsys: pytest.CaptureFixture[str]) -> None:
    run("tune", "--dry-run", "--trials", "5", "--time-budget", "60", "--concurrent=2", "--space", "singer")
    config = config_of_file(yaml.safe_load(capsys.readouterr().out), "what was printed")
    assert (config.search.trials, config.search.time_budget, config.search.concurrent) == (5, 60.0, 2)


def test_layers_take_several_values(capsys: pytest.CaptureFixture[str]) -> None:
    run("train", "--dry-run", "--teacher.layers", "2", "4", "--student.layers", "0", "2")
    config = config_of_file(yaml.safe_load(capsys.readouterr().out), "what was printed")
    assert (config.teacher.layers, config.student.layers) == ((2, 4), (0, 2))


def test_python_dash_m_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"python -m singer_ray.{name}" in shown for name in COMMANDS)
    assert front.main(["--version"]) == 0
    assert capsys.readouterr().out == f"singer_ray {singer_ray.__version__}\n"
    assert shown_by("train", capsys, "--version") == f"singer_ray {singer_ray.__version__}\n"


def test_what_is_shipped_is_listed_with_its_first_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert front.SHIPPED.keys() >= {"presets", "spaces"}
    for name, (option, kind) in front.SHIPPED.items():
        assert front.main([name]) == 0
        lines = capsys.readouterr().out.splitlines()
        listed = dict(line.split("  ", 1) for line in lines[: lines.index("")])
        assert [shipped.strip() for shipped in listed] == shipped_names(kind)
        assert all(len(what.strip()) > 20 for what in listed.values())
        assert f"{option} NAME" in lines[-1]


def test_a_command_runs_behind_python_dash_m(capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main(["train", "--dry-run", "--method.rank", "7"]) == 0
    assert config_of_file(yaml.safe_load(capsys.readouterr().out), "what was printed").method.rank == 7
    for wrong, said in (("trian", "Did you mean train?"), ("xyz", "lists the commands"), ("preset", "mean presets?")):
        assert front.main([wrong]) == 2
        error = capsys.readouterr().err
        assert f"unrecognized argument {wrong!r}" in error
        assert said in error
        assert error.count("\n") == 1


@pytest.mark.slow
def test_a_real_process_ends_with_2_and_one_line() -> None:
    command = [sys.executable, "-m", "singer_ray.train", "--workers", "64", "--train.launcher", "local", "--out", "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert re.search(r"train\.launcher local runs one worker.*Use --train\.launcher ray", done.stderr)
    assert not Path("out").exists()
