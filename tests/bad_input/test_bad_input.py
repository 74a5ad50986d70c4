"""Whatever people type wrongly: one line that can be acted on, exit status 2, and nothing written.

Each module beside this one is a table: `CASES`, and `places` where the cases name files.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tests.bad_input
from singer_ray.cli import run_command
from singer_ray.nodes import ray_cluster
from tests.bad_input.case import Case, Trees

TABLES: dict[str, ModuleType] = {
    found.name: module
    for found in pkgutil.iter_modules(tests.bad_input.__path__)
    if not found.name.startswith("test_") and found.name != "case"
    for module in [importlib.import_module(f"tests.bad_input.{found.name}")]
}
ROWS = [(table, case) for table, module in TABLES.items() for case in module.CASES]
ADVICE = (
    r"Allowed|Restore|Correct|Put|Give|Use|Choose|Change|Replace|Lower|Name|Mend|Leave|Publish|Start again|Fix"
    r"|Rename|rename|mean|lists all|explains|needs (a|--)|name one"
)


def named(value: Any) -> str:
    return f"{value[0]} {' '.join(value[1])}" if isinstance(value, tuple) else value


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is refused before Ray starts: a mistake must not cost a search here, nor its user a minute."""

    def connected(name: str | None = None) -> None:
        raise AssertionError("bad input reached Ray")

    monkeypatch.setattr(ray_cluster, "connected", connected)


def test_there_are_tables_of_many_cases() -> None:
    assert len(ROWS) >= 80
    assert len({named(case) for _, case in ROWS}) == len(ROWS), "a case stands twice"


@pytest.mark.parametrize(("table", "case"), ROWS, ids=named)
def test_wrong_input_is_answered_in_one_line(
    table: str, case: Case, image_tree: Trees, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name, arguments, said = case
    make = getattr(TABLES[table], "places", None)
    places = make(image_tree, tmp_path) if make else {}
    before = {p: p.lstat().st_mtime_ns for p in tmp_path.rglob("*")}
    door: Any = importlib.import_module(f"singer_ray.{name}")
    assert run_command(door.COMMAND, door.main, [argument.format(**places) for argument in arguments]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1, error
    assert error.startswith(f"python -m singer_ray.{name}: ")
    assert said.format(**places) in error
    assert re.search(ADVICE, error), "it should say what is allowed or what to do"
    assert {p: p.lstat().st_mtime_ns for p in tmp_path.rglob("*")} == before
