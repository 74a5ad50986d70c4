"""What a command takes on its command line."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from singer_ray.config import Config
from singer_ray.config.names import plain
from singer_ray.config.tree import fields
from singer_ray.console.wording import called

Flags = TypeVar("Flags")
SHORTCUTS = {
    "workers": "train.workers",
    "trials": "search.trials",
    "time-budget": "search.time_budget",
    "concurrent": "search.concurrent",
    "space": "search.space",
    "storage": "train.storage",
    "trackers": "train.trackers",
    "export": "export.to",
}
"""Undotted names of much used settings; a command lists those that it takes."""
QUIET, VERBOSE = "--quiet", "--verbose"
LOUDNESS = {
    "quiet": "Print only the results, and what goes wrong; log.txt in --out has the rest.",
    "verbose": "Print more details, and where an error came from.",
}
"""Flags of every command, which `run_command` reads before anything else."""
PRESET = "Where settings start from: a shipped preset, or a YAML file of your own."


@dataclasses.dataclass(frozen=True)
class Command(Generic[Flags]):
    """A command: its name, the docstring that --help opens with, its own flags and the shortcuts it takes.

    `positional` names the field of the flags (a tuple) that takes arguments without a name, shown as `metavar`;
    `given` the one that receives the dotted names of the settings on the command line, `typed` the one that receives
    the options as they were typed, values by plain name; without them there is neither. `distils`: whether the command
    shows the configured images to the configured teacher.
    """

    name: str
    doc: str | None
    flags: type[Flags]
    shortcuts: Sequence[str] = ()
    positional: str | None = None
    given: str | None = None
    typed: str | None = None
    distils: bool = False
    metavar: str = "NAME"
    optional: Sequence[str] = ()
    """Own flags whose value may be left out; then it is the empty text."""

    @property
    def prog(self) -> str:
        return called(self.name)


@dataclasses.dataclass(frozen=True)
class Option:
    """One thing that can be given by name: a flag of the command, or a setting."""

    name: str
    """As it is shown: a setting as in files (data.image_size), a flag with dashes (dry-run)."""
    annotation: Any
    doc: str
    default: Any = None
    setting: str | None = None
    """Dotted name, of a setting."""
    field: FieldInfo | None = None

    @property
    def is_list(self) -> bool:
        return get_origin(self.annotation) is tuple

    @property
    def is_bool(self) -> bool:
        return self.annotation is bool

    @property
    def takes_none(self) -> bool:
        return type(None) in _parts(self.annotation)

    @property
    def choices(self) -> tuple[str, ...]:
        """What a `Literal` allows."""
        parts = _parts(self.annotation)
        if self.is_list:
            parts = _parts(get_args(self.annotation)[0])
        return tuple(value for part in parts if get_origin(part) is Literal for value in get_args(part))


def _parts(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def own_options(command: Command[Any]) -> dict[str, Option]:
    """The flags of a command, without what takes arguments that have no name, under their field's name."""
    hidden = (command.positional, command.given, command.typed)
    hints = typing.get_type_hints(command.flags)
    docs = attribute_docs(command.flags)
    options = {"preset": Option("preset", str, PRESET, "demo")}
    for field in dataclasses.fields(command.flags):
        if field.name not in hidden:
            default = None if field.default is dataclasses.MISSING else field.default
            name = field.name.replace("_", "-")
            options[field.name] = Option(name, hints[field.name], docs.get(field.name, ""), default)
    return options


def setting_options(config: Config) -> dict[str, Option]:
    """Every setting, with its value in `config` as the default, under its dotted name."""
    return {
        name: Option(name, info.annotation, _joined(info.description or ""), config.value(name), name, info)
        for name, info in fields()
    }


def options_of(command: Command[Any], config: Config) -> dict[str, Option]:
    """All that a command takes by name, under every name in the plain spelling; an own flag goes before a setting."""
    settings = setting_options(config)
    short = {plain(name): settings[SHORTCUTS[name]] for name in command.shortcuts}
    return {**settings, **short, **own_options(command)}


def attribute_docs(cls: type) -> dict[str, str]:
    """The docstrings below the fields of a dataclass and of those that it extends."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        [node] = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        body = getattr(node, "body", [])
        for field, text in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                docs[field.target.id] = _joined(str(ast.literal_eval(text.value)))
    return docs


def _joined(text: str) -> str:
    return " ".join(text.split())
