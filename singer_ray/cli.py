"""The command line that all commands share: configuration tree, own flags, one-line errors."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro
from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from singer_ray.config import Config, field_names, load_preset
from singer_ray.config.places import with_places
from singer_ray.errors import UserError, nearest

Flags = TypeVar("Flags")

console = Console(width=None if sys.stdout.isatty() else 180)
SHORTCUTS = {
    "workers": "train.workers",
    "trials": "search.trials",
    "time-budget": "search.time_budget",
    "concurrent": "search.concurrent",
    "space": "search.space",
    "storage": "train.storage",
    "export": "export.to",
}
"""Undotted names of much used knobs; a command lists those that it takes."""


@dataclasses.dataclass(frozen=True)
class Command(Generic[Flags]):
    """A command: its name, the docstring that --help opens with, its own flags and the shortcuts it takes.

    `positional` names the field of the flags (a tyro `Positional`) that takes arguments without a name, and `given`
    the one that receives the dotted names of the knobs set on the command line, `words` the one that receives the
    command line itself; without them there is neither.
    """

    name: str
    doc: str | None
    flags: type[Flags]
    shortcuts: Sequence[str] = ()
    positional: str | None = None
    given: str | None = None
    words: str | None = None

    @property
    def prog(self) -> str:
        return f"python -m singer_ray.{self.name}"


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


def parse(command: Command[Flags], argv: Sequence[str]) -> tuple[Config, Flags]:
    """The resolved configuration and the command's own flags. Exits after --help; raises UserError."""
    tokens = list(_expand(command, argv))
    preset = _value_of("preset", tokens) or "demo"
    config = load_preset(preset)
    if command.positional:
        unnamed, named = _split(command, config, tokens)
        tokens = [*unnamed, *named]  # tyro reads arguments without a name only when they stand together
    arguments = _arguments_type(command)
    default = arguments(config=config, flags=command.flags(), preset=preset)
    shortcuts = "".join(f"\n  --{name:<14} is --{SHORTCUTS[name]}" for name in command.shortcuts)
    description = f"{command.doc}\nShort names:{shortcuts}" if shortcuts else command.doc
    options: dict[str, Any] = {"prog": command.prog, "description": description, "default": default, "args": tokens}
    if {"-h", "--help"} & set(tokens):
        tyro.cli(arguments, **options)
    _check_names(command, tokens)
    captured = io.StringIO()
    try:
        with contextlib.redirect_stdout(captured), contextlib.redirect_stderr(captured):
            parsed: Any = tyro.cli(arguments, **options)
    except (SystemExit, ValidationError) as exit_:
        raise UserError(_explain_tokens(command, config, tokens, captured.getvalue())) from exit_
    flags = with_places(parsed.flags)
    if command.given:
        flags = dataclasses.replace(flags, **{command.given: _knobs_in(tokens)})
    if command.words:
        flags = dataclasses.replace(flags, **{command.words: tuple(argv)})
    return parsed.config, flags


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


def _expand(command: Command[Any], argv: Sequence[str]) -> Iterator[str]:
    for token in argv:
        name, equals, value = token.partition("=")
        short = name.removeprefix("--").replace("_", "-")
        if name.startswith("--") and short in command.shortcuts:
            name = f"--{SHORTCUTS[short]}"
        if equals and name.startswith("--"):
            yield from (name, value)
        else:
            yield token if equals else name


def _value_of(flag: str, tokens: Sequence[str]) -> str | None:
    places = [i for i, token in enumerate(tokens) if token == f"--{flag}"]
    if not places:
        return None
    if places[-1] + 1 >= len(tokens):
        raise UserError(f"--{flag} needs a value.")
    return tokens[places[-1] + 1]


def _split(command: Command[Any], config: Config, tokens: Sequence[str]) -> tuple[list[str], list[str]]:
    """Arguments without a name, and the options: a flag takes no value, a list all that follow, anything else one."""
    hints = {f.name.replace("_", "-"): f.type for f in dataclasses.fields(command.flags)}
    knobs = {name.replace("_", "-"): name for name in field_names()}
    unnamed: list[str] = []
    named: list[str] = []
    room = 0.0
    for token in tokens:
        if token.startswith("--") or token == "-h":
            name = token.lstrip("-").replace("_", "-")
            listed = name in knobs and isinstance(_read(config, knobs[name]), tuple)
            room = float("inf") if listed else float(name not in ("h", "help") and hints.get(name) != "bool")
            named.append(token)
        elif room > 0:
            room -= 1
            named.append(token)
        else:
            unnamed.append(token)
    return unnamed, named


def _knobs_in(tokens: Sequence[str]) -> frozenset[str]:
    knobs = {name.replace("_", "-"): name for name in field_names()}
    given = (token[2:].replace("_", "-") for token in tokens if token.startswith("--"))
    return frozenset(knobs[name] for name in given if name in knobs)


def _arguments_type(command: Command[Flags]) -> Any:
    flat = tyro.conf.arg(name="")
    return dataclasses.make_dataclass(
        "Arguments",
        [
            ("flags", Annotated[command.flags, flat, tyro.conf.FlagCreatePairsOff]),
            ("preset", Annotated[str, tyro.conf.arg(help="Shipped preset, or a YAML file of one's own.")], "demo"),
            ("config", Annotated[Config, flat, tyro.conf.FlagConversionOff], Config()),
        ],
        kw_only=True,
        frozen=True,
    )


def _own_flags(command: Command[Any]) -> list[str]:
    hidden = (command.positional, command.given, command.words)
    names = [f.name.replace("_", "-") for f in dataclasses.fields(command.flags) if f.name not in hidden]
    return ["preset", *names, *command.shortcuts]


def _check_names(command: Command[Any], tokens: Sequence[str]) -> None:
    known = {name.replace("_", "-"): name for name in (*field_names(), *_own_flags(command))}
    for token in tokens:
        if not token.startswith("--"):
            continue
        name = token[2:].replace("_", "-")
        if name not in known:
            raise UserError(f"Unknown option {token}.{_suggest(token[2:], known.values())} --help lists all.")


def _suggest(name: str, known: Iterable[str]) -> str:
    close = nearest(name, known)
    return close.replace("mean ", "mean --") if close else ""


def _explain_tokens(command: Command[Any], config: Config, tokens: Sequence[str], said: str) -> str:
    """Why tyro refused: found by setting the values one by one where pydantic says in one line what is wrong."""
    given: dict[str, list[str]] = {}
    name = ""
    for token in tokens:
        if token.startswith("--"):
            name = token[2:]
            given[name] = []
        elif name:
            given[name].append(token)
        elif not command.positional:
            return f"Unexpected argument {token!r}: every option has a name that starts with --. --help lists all."
    fields = {f.replace("_", "-"): f for f in field_names()}
    tree: dict[str, Any] = {}
    for name, values in given.items():
        knob = fields.get(name.replace("_", "-"))
        if knob is None:
            fault = _own_fault(command, name, values)
            if fault:
                return fault
            continue
        listed = isinstance(_read(config, knob), tuple)
        if not listed and len(values) != 1:
            problem = "needs a value" if not values else f"takes one value, not {' '.join(values)}"
            return f"--{knob} {problem}. --help explains it."
        value: Any = values if listed else values[0]
        tree[knob] = None if value == "None" else value
    try:
        config.override(tree)
    except UserError as error:
        return str(error).replace(" (the configuration)", "")
    plain = " ".join(line.strip("│╭╮╰╯─ ") for line in said.splitlines())
    return f"The command line cannot be read: {' '.join(plain.split())}"


def _own_fault(command: Command[Any], name: str, values: Sequence[str]) -> str | None:
    hints = {f.name.replace("_", "-"): f.type for f in dataclasses.fields(command.flags)}
    hint = hints.get(name.replace("_", "-"), "str")
    if hint == "bool":
        return f"--{name} takes no value, not {' '.join(values)!r}." if values else None
    if len(values) != 1:
        return f"--{name} needs one value{', not ' + ' '.join(values) if values else ''}."
    kinds: dict[str, tuple[type, str]] = {"int": (int, "a whole number"), "float": (float, "a number")}
    kind, allowed = kinds.get(str(hint), (str, "text"))
    try:
        TypeAdapter(kind).validate_python(values[0])
    except ValidationError:
        return f"--{name} is {values[0]!r}. Allowed: {allowed}."
    return None


def _read(config: Config, dotted: str) -> Any:
    value: Any = config
    for part in dotted.split("."):
        value = getattr(value, part)
    return value
