"""The command line that all commands share: configuration tree, own flags, one-line errors."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from singer_ray.config import Config
from singer_ray.errors import UserError
from singer_ray.options.command import Command as Command
from singer_ray.options.command import Flags
from singer_ray.options.parsing import parse

console = Console(width=None if sys.stdout.isatty() else 180)


def run_command(
    command: Command[Flags], main: Callable[[Config, Flags], None], argv: Sequence[str] | None = None
) -> int:
    """Parses, runs `main` and returns the exit status; a UserError becomes one line on stderr and status 2."""
    try:
        config, flags = parse(command, sys.argv[1:] if argv is None else argv)
        main(config, flags)
    except UserError as error:
        print(f"{command.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{command.prog}: interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, less) has left: there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


def print_plan(config: Config, plan: Sequence[str]) -> None:
    """What --dry-run prints: the resolved tree as YAML, then the plan as comments, so that the output is a preset."""
    print(config.to_yaml(), end="")
    for line in plan:
        print(f"# {line}")


def default_out(command: str) -> Path:
    """Where a command writes that was given no --out."""
    return Path("runs") / f"{command}-{time.strftime('%Y%m%d-%H%M%S')}"


def prepare_out(folder: Path, *, overwrite: bool, resume: bool = False) -> Path:
    """The folder of a run, made or emptied. Raises UserError for one that holds something and may not be replaced."""
    check_out(folder, overwrite=overwrite, resume=resume)
    if overwrite and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
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
    ours = any((folder / mark).exists() for mark in ("config.yaml", "result.json", "study.journal"))
    if overwrite and not ours:
        raise UserError(
            f"--out {folder} holds files that are not a result of singer_ray: --overwrite will not delete them. "
            "Give another folder."
        )
    if not overwrite and not resume:
        raise UserError(
            f"--out {folder} is not empty. Give another folder, or --overwrite to replace the result in it."
        )
