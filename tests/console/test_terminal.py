"""A screen that goes away ends nothing, one of another encoding shows escapes, and a narrow one whole words."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from singer_ray.console.terminal import Column, FittedTable, Lasting, lasting, log
from singer_ray.search.watch.progress import SearchProgress
from tests.search.studies import MIOU

PARAMETERS = {"method.rank": 8, "method.loss.outlier": 0.25, "method.outlier_quantile": 0.95, "train.lr": 0.004}


class Broken(io.StringIO):
    """The file of a pipe whose reader has left after some writes."""

    def __init__(self, error: Exception, after: int = 0) -> None:
        super().__init__()
        self.error, self.left = error, after

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().write(text)


@pytest.mark.parametrize(
    "error", [BrokenPipeError(), OSError(5, "Input/output error"), OSError(28, "full"), ValueError()]
)
def test_a_screen_that_goes_away_ends_nothing(error: Exception) -> None:
    file = Broken(error, after=1)
    console = lasting(Console(file=file, width=80))
    for line in ("one", "two", "three"):
        log(console, line)
    assert file.getvalue() == "one\n"
    assert lasting(console) is console


def test_a_screen_that_takes_no_more_for_a_moment_is_written_to_again() -> None:
    file = Broken(BlockingIOError())
    lasted = Lasting(file)
    lasted.write("lost")
    file.left = 1
    lasted.write("kept")
    assert file.getvalue() == "kept"


@pytest.mark.slow
def test_a_reader_that_has_left_is_no_trouble_even_when_the_process_ends() -> None:
    program = (
        "import sys, time; from rich.console import Console; from singer_ray.console.terminal import lasting, log\n"
        "console = lasting(Console())\n"
        "for n in range(20000): log(console, f'line {n}')\n"
        "print('alive', file=sys.stderr)"
    )
    run = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout is not None
    run.stdout.readline()
    run.stdout.close()
    assert run.stderr is not None
    assert run.stderr.read() == b"alive\n"
    assert run.wait() == 0


def test_what_an_encoding_lacks_is_written_as_an_escape() -> None:
    raw = io.BytesIO()
    console = lasting(Console(file=io.TextIOWrapper(raw, encoding="ascii"), width=60))
    log(console, "runs/möbel 日 \x1b[31m [red]x[/red]")
    console.print(FittedTable([Column("trial", ["000"]), Column("ö", ["日"])]))
    text = raw.getvalue().decode("ascii")
    assert text.splitlines()[0] == "runs/m\\xf6bel \\u65e5 \\x1b[31m [red]x[/red]"
    assert "trial" in text


@pytest.mark.slow
def test_commands_print_on_consoles_of_other_encodings() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    run = subprocess.run(
        [sys.executable, "-m", "singer_ray.report", "runs/möbel 日"], capture_output=True, check=False, env=environment
    )
    assert run.returncode == 2
    assert b"runs/m\\xf6bel \\u65e5" in run.stderr
    assert b"Traceback" not in run.stderr


def test_a_long_command_stays_one_line() -> None:
    screen = io.StringIO()
    log(Console(file=screen, width=40, force_terminal=True, color_system=None), "python -m " + "x/" * 60)
    assert screen.getvalue() == "python -m " + "x/" * 60 + "\n"


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_narrow_screens_drop_columns_and_break_no_word(width: int) -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=width, color_system=None)
    progress = SearchProgress(console, MIOU, epochs=30, wanted=2)
    progress.on_trial_start("000", PARAMETERS)
    progress.on_epoch_end("000", 3, {"val/miou": 0.12345})
    progress.on_trial_queued("001", PARAMETERS)
    screen.truncate(0)
    console.print(progress.table())
    table = [line for line in screen.getvalue().splitlines() if line[:1] in "┃│"]
    assert all(len(line) <= width for line in table)
    heads = [head.strip() for head in table[0].strip("┃").split("┃")]
    assert heads[:2] == ["trial", "state"]
    assert set(heads) <= {
        "trial",
        "state",
        "epoch",
        "val/miou",
        "method.rank",
        "loss.outlier",
        "outlier_quantile",
        "lr",
    }
    assert "val/miou" in heads
    assert len(heads) == {40: 4, 60: 5, 80: 6, 120: 8}[width]
    assert [len(row.split("│")) - 2 for row in table[1:]] == [len(heads)] * 2
    assert "RUNNING" in table[1]
    assert "0.1235" in table[1]
    assert "QUEUED" in table[2]
    assert "0/30" not in table[2], "it has no epoch behind it, and none before it yet"
    assert ("No room for: " in screen.getvalue()) == (len(heads) < 8)
