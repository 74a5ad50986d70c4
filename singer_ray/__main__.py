"""Lists the commands and runs them. Installed as `singer-ray`.

singer-ray                          python -m singer_ray                         the commands
singer-ray tune --trials 20         python -m singer_ray tune --trials 20        one of them
singer-ray presets                  python -m singer_ray presets                 what is shipped
singer-ray --version                python -m singer_ray --version
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

from singer_ray import __version__
from singer_ray.console.wording import SCRIPT, called
from singer_ray.errors import nearest, printable
from singer_ray.resources import shipped_files

COMMANDS = {
    "train": "distils one student",
    "tune": "searches for the best student with Ray Tune and Optuna, and exports the best ones",
    "report": "writes one offline page about a search: best setting, leaderboard, curves, parameters, cost",
    "export": "publishes the best students of a search to a folder or S3; verifies and fetches published ones",
    "analyze": "says whether a teacher's features carry artifacts and whether these bias distillation",
    "evaluate": "scores frozen students, teachers and baselines side by side: probes, artifacts, likeness to a teacher",
    "teacher": "trains a small teacher on labelled images, for when no published one fits",
    "digits": "writes scikit-learn's handwritten digits as folders of PNG files, to try real images",
}
SHIPPED = {"presets": ("--preset", "presets"), "spaces": ("--space", "tune_spaces")}
"""What is listed under which name: the option that takes it, and the folder that it is shipped in."""


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the list, or does what is named behind it."""
    given = list(sys.argv[1:] if argv is None else argv)
    if not given or given[0] in ("-h", "--help", "--help-all", "help"):
        _list_commands()
        return 0
    name, rest = given[0], given[1:]
    if name in ("-V", "--version", "version"):
        print(f"singer_ray {__version__}")
        return 0
    if name in SHIPPED and not rest:
        _list_shipped(name)
        return 0
    if name in COMMANDS:
        from singer_ray.cli import run_command

        door: Any = importlib.import_module(f"singer_ray.{name}")
        return run_command(door.COMMAND, door.main, rest)
    wrong = rest[0] if name in SHIPPED else name
    hint = nearest(wrong, [*COMMANDS, *SHIPPED, "--version"]) or f" {called()} lists the commands."
    print(f"{called()}: unrecognized argument {printable(wrong)!r}.{hint}", file=sys.stderr)
    return 2


def _list_commands() -> None:
    print(f"singer_ray {__version__}: distil large Vision Transformers into small ones\n")
    front, width = called(), max(len(called(name)) for name in COMMANDS)
    other = SCRIPT if front != SCRIPT else "python -m singer_ray"
    for name, what in COMMANDS.items():
        print(f"  {called(name):<{width}}  {what}")
    print(f"\n  {front} presets   lists the shipped presets, for --preset")
    print(f"  {front} spaces    lists the shipped search spaces, for --space")
    print(f"\nEach command has --help; those that run something have --dry-run. {other} COMMAND works too.")
    print("From Python: from singer_ray import distill, sweep, evaluate_networks, analyze_teacher")


def _list_shipped(what: str) -> None:
    option, kind = SHIPPED[what]
    files = shipped_files(kind)
    width = max(len(file.stem) for file in files)
    for file in files:
        print(f"{file.stem:<{width}}  {_first_line(file.read_text(encoding='utf-8'))}")
    print(f"\nGive one with {option} NAME. To change one, copy it from {files[0].parent} and give {option} FILE.")


def _first_line(text: str) -> str:
    """What the comment at the top of a YAML file says first."""
    first = text.splitlines()[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


if __name__ == "__main__":
    sys.exit(main())
