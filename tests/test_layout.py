"""layout.py alone spells the names of files and folders."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from singer_ray import layout
from tests.test_layers import ROOT, sources

NAMES = {value for name, value in vars(layout).items() if name.isupper()}
FILES = {name for name in NAMES if "." in name}


def spelled(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of each string that is one of the names: alone, at the end of a path, or behind a folder's `/`.

    Names of folders are words that mean other things too, so they count only as part of a path. Docstrings and
    sentences that contain a name do not count.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            if isinstance(node.right, ast.Constant) and node.right.value in NAMES:
                yield node.lineno, str(node.right.value)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            last = node.value.rpartition("/")[2]
            if last in FILES and " " not in node.value:
                yield node.lineno, last


def test_the_names_differ_and_are_many() -> None:
    assert len(NAMES) == len([name for name in vars(layout) if name.isupper()])
    assert len(FILES) > 20


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("x = 'config.yaml'", ["config.yaml"]),
        ("x = f'{folder}/result.json'", ["result.json"]),
        ("x = 'study/search.json'", ["search.json"]),
        ("x = folder / 'student'", ["student"]),
        ("x = {'student': 1}", []),
        ("x = 'there is no config.yaml in it'", []),
        ("x = 'the folder lacks config.yaml'", []),
        ("def f():\n    'Reads config.yaml.'", []),
    ],
)
def test_spelled_names_are_seen(code: str, names: list[str]) -> None:
    assert [name for _, name in spelled(ast.parse(code))] == names


@pytest.mark.parametrize("path", sources(ROOT), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_module_spells_one(path: Path) -> None:
    wrong = list(spelled(ast.parse(path.read_text())))
    assert bool(wrong) == (path == ROOT / "layout.py"), wrong
