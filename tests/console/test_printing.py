"""--quiet, --verbose and log.txt, through a command that takes a moment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.table import Table

from singer_ray.cli import Command, console, results, run_command
from singer_ray.config import Config
from singer_ray.console.outputs import prepare_out
from singer_ray.console.runlog import is_log, note
from singer_ray.errors import UserError


@dataclass(frozen=True)
class Flags:
    """Flags of the command."""

    out: Path = Path("out")
    """Folder."""
    overwrite: bool = False
    """Replace."""
    fail: bool = False
    """Fail."""


def main(config: Config, flags: Flags) -> None:
    console.print("before the folder")
    prepare_out(flags.out, overwrite=flags.overwrite, resume=True)
    console.print("progress [1/2]", markup=False)
    drawn = Table("metric")
    drawn.add_row("miou")
    console.print(drawn)
    note("a detail")
    if flags.fail:
        try:
            raise KeyError("the cause")
        except KeyError as error:
            raise UserError("it failed") from error
    results.print("Wrote out")


COMMAND = Command("digits", "A command.", Flags)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> int:
    return run_command(COMMAND, main, arguments)


def lines() -> list[str]:
    """Of the log, without times."""
    found = Path("out/log.txt").read_text().splitlines()
    return [line if line.startswith("#") else line[21:] for line in found]


def test_the_log_has_what_was_printed_with_times_versions_and_the_command_without_secrets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("--search.study", "postgresql://me:hunter2@host/x") == 0
    assert "progress [1/2]" in capsys.readouterr().out
    head, (version, command), rest = lines()[0], lines()[1:3], lines()[3:]
    assert head.startswith("# 20")
    assert version.startswith("# singer_ray ")
    assert "torch" in version
    assert command.startswith("# python -m singer_ray.digits --search.study postgresql://")
    assert "hunter2" not in Path("out/log.txt").read_text()
    said = ["before the folder", "progress [1/2]", "a detail", "Wrote out"]
    assert [line for line in rest if line in said] == said
    assert any("miou" in line for line in rest)
    assert is_log(Path("out/log.txt"))
    run()
    assert sum(line.startswith("# singer_ray") for line in lines()) == 2  # appended


def test_quiet_prints_results_and_errors_alone_and_the_log_has_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--quiet") == 0
    assert capsys.readouterr().out == "Wrote out\n"
    assert "progress [1/2]" in lines()
    assert run("--quiet", "--fail") == 2
    assert capsys.readouterr() == ("", "python -m singer_ray.digits: it failed\n")
    assert run() == 0
    assert "progress [1/2]" in capsys.readouterr().out  # the next command is not silenced


def test_verbose_shows_details_and_where_an_error_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--fail") == 2
    assert "the cause" not in capsys.readouterr().err
    assert "KeyError: 'the cause'" in Path("out/log.txt").read_text()
    assert run("--verbose", "--fail") == 2
    error = capsys.readouterr().err
    assert "a detail" in error
    assert "KeyError: 'the cause'" in error
    assert error.splitlines()[-1] == "python -m singer_ray.digits: it failed"
    assert run("--verbose", "--quiet") == 2
    assert "contradict each other" in capsys.readouterr().err


def test_the_log_of_a_stranger_is_no_link_to_a_file_of_ours() -> None:
    Path("out").mkdir()
    Path("mine.txt").write_text("mine")
    Path("out/log.txt").symlink_to(Path("mine.txt").absolute())
    assert run() == 0
    assert Path("mine.txt").read_text() == "mine"


def test_a_log_of_someone_else_makes_no_folder_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    Path("out/log.txt").write_text("dear diary")
    assert run("--overwrite") == 2
    assert "not a result of singer_ray" in capsys.readouterr().err
    assert Path("out/log.txt").read_text() == "dear diary"
