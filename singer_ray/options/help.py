"""What --help says: one screen of what is used most; a block, a single option or everything when asked for."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from singer_ray.config import Config, field_names
from singer_ray.config.names import candidates, did_you_mean, plain
from singer_ray.config.tree import allowed_by
from singer_ray.errors import UserError, printable
from singer_ray.options.command import LOUDNESS, SHORTCUTS, Command, Option, own_options, setting_options

_IMAGES = ("data.train", "data.val", "data.test", "data.image_size")
COMMON: dict[str, tuple[str, ...]] = {
    "train": (
        "data.train",
        "data.val",
        "data.image_size",
        "teacher.name",
        "student.name",
        "method.refiner",
        "method.rank",
        "train.epochs",
        "train.batch_size",
        "train.lr",
        "train.device",
        "seed",
    ),
    "tune": (
        "data.train",
        "data.val",
        "teacher.name",
        "student.name",
        "train.epochs",
        "search.objectives",
        "search.sampler",
        "search.scheduler",
    ),
    "evaluate": (*_IMAGES, "teacher.name", "evaluation.protocol", "train.device"),
    "analyze": (
        "data.train",
        "data.val",
        "data.image_size",
        "teacher.name",
        "teacher.layers",
        "method.refiner",
        "method.rank",
        "train.batch_size",
        "train.device",
        "seed",
    ),
    "teacher": (*_IMAGES, "train.device", "seed"),
    "export": ("export.onnx", "export.program", "export.license", "export.endpoint", "export.encryption"),
}
"""The settings that each command's --help shows: those that people change most."""
LARGEST_NAME = 30
LONG = 80
"""Characters of a sentence beyond which the screen shows its first half."""
_KINDS: dict[Any, str] = {int: "N", float: "X", bool: "true|false", str: "TEXT"}


@dataclass(frozen=True)
class Topic:
    """What help is wanted about: nothing in particular, "all", a block, or a name."""

    name: str = ""


def show_help(command: Command[Any], config: Config, preset: str, topic: Topic) -> None:
    """Prints it. Raises UserError for a topic that is neither a block nor an option."""
    width = max(60, min(120, shutil.get_terminal_size((100, 40)).columns))
    console = Console(width=width, highlight=False, soft_wrap=False)
    loudness = {name: Option(name, bool, doc, default=False) for name, doc in LOUDNESS.items()}
    own, settings = own_options(command) | loudness, setting_options(config)
    if not topic.name:
        _screen(console, command, own, settings)
    elif topic.name == "all":
        _opening(console, command)
        _section(console, "Options of this command", _own_rows(command, own, settings), full=True)
        for block in blocks():
            _block(console, block, settings)
    elif topic.name in blocks():
        _block(console, topic.name, settings)
    else:
        _single(console, command, preset, topic.name, own, settings)


def blocks() -> dict[str, str]:
    """The dotted name of each block of settings, and what it is for; "" holds those that are in none."""
    named = {"": "Settings of no block."}
    for name in field_names():
        parts = name.split(".")[:-1]
        model: Any = Config
        for place, part in enumerate(parts, start=1):
            model = model.model_fields[part].annotation
            named.setdefault(".".join(parts[:place]), " ".join((model.__doc__ or "").split()))
    return named


def kind_of(option: Option) -> str:
    """What stands behind the name of an option: N, X (a number), true|false, DIR|..., CHOICE."""
    if option.choices:
        listed = "|".join(option.choices)
        short = listed if len(option.name) + len(listed) + 4 <= LARGEST_NAME else "CHOICE"
        return f"{short} ..." if option.is_list else short
    text = str(option.annotation)
    if option.doc.startswith("Folder ") and "str" in text:
        return "DIR"
    kind = next((shown for kind, shown in _KINDS.items() if kind is option.annotation), None)
    kind = kind or next((s for k, s in _KINDS.items() if re.search(rf"\b{k.__name__}\b", text)), "PATH")
    return f"{kind} ..." if option.is_list else kind


def shown_value(value: Any) -> str:
    """A default as one would type it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return "" if value is None else str(value)


def _opening(console: Console, command: Command[Any]) -> None:
    names = f" {command.metavar}" if command.positional else ""
    console.print(f"usage: {command.prog}{names} [OPTIONS]\n", markup=False)
    for paragraph in (command.doc or "").strip().split("\n\n"):
        commands = paragraph.startswith("    ")
        console.print(Text(paragraph if commands else " ".join(paragraph.split())), soft_wrap=commands)
        console.print()


def _screen(console: Console, command: Command[Any], own: Mapping[str, Option], settings: Mapping[str, Option]) -> None:
    _opening(console, command)
    _section(console, "Options", _own_rows(command, own, settings))
    common = [settings[name] for name in COMMON.get(command.name, ())]
    if not common:
        return
    _section(console, "Settings that are changed most", [(f"--{o.name}", o, False) for o in common])
    names = ", ".join(name for name in blocks() if name and "." not in name)
    console.print(
        f"More settings: --help BLOCK (one of {names}), --help-all, or --help NAME for a single one. In names, - and _ "
        "are the same.",
        markup=False,
    )


Row = tuple[str, Option, bool]
"""How an option is written, the option, and whether it must be given."""


def _own_rows(command: Command[Any], own: Mapping[str, Option], settings: Mapping[str, Option]) -> list[Row]:
    rows = [(f"--{option.name}", option, False) for option in own.values()]
    rows += [(f"--{name}", settings[SHORTCUTS[name]], False) for name in command.shortcuts]
    if command.positional:
        from singer_ray.options.command import attribute_docs

        doc = attribute_docs(command.flags).get(command.positional, "")
        rows.insert(0, (command.metavar, Option("", str, doc), True))
    return rows


def _section(console: Console, title: str, rows: Iterable[Row], *, full: bool = False, note: str = "") -> None:
    console.print(Text(title, style="bold"), end="\n" if not note else "")
    if note:
        console.print(Text(f": {note}"))
    table = Table.grid(padding=(0, 2), expand=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for shown, option, required in rows:
        # A flag of the command that is false by default is given by its name alone.
        bare = option.is_bool and option.setting is None
        kind = "" if not option.name or bare else f" {kind_of(option)}"
        table.add_row(Text(f"  {shown}{kind}", style="cyan"), _explained(option, required, full))
    console.print(table)
    console.print()


def _explained(option: Option, required: bool, full: bool) -> RenderableType:
    text = option.doc if full else _short(option)
    default = shown_value(option.default)
    if required:
        text = f"Required. {text}"
    if full and option.choices and not all(choice in text for choice in option.choices):
        text += f" One of {', '.join(option.choices)}."
    if option.setting and SHORTCUTS.get(option.name) is None and option.setting in SHORTCUTS.values() and full:
        short = next(name for name, setting in SHORTCUTS.items() if setting == option.setting)
        text += f" Short: --{short}."
    if default and not (option.is_bool and option.setting is None):
        text += f" [{default}]"
    return Text(text)


def _short(option: Option) -> str:
    """The first sentence; of a choice that its name does not show, all that can be chosen."""
    sentence = re.split(r"(?<=\.)\s", option.doc, maxsplit=1)[0]
    if option.choices and kind_of(option).startswith("CHOICE"):
        what, colon, _ = sentence.partition(":")
        what = what if colon and "(" not in what else "One of"
        return f"{what}: {', '.join(option.choices)}."
    if len(sentence) <= LONG or ";" not in sentence:
        return sentence
    return sentence.partition(";")[0].rstrip(".") + "."


def _block(console: Console, block: str, settings: Mapping[str, Option]) -> None:
    rows = [(f"--{o.name}", o, False) for name, o in settings.items() if name.rpartition(".")[0] == block]
    if rows:
        _section(console, block or "Settings", rows, full=True, note=blocks()[block])


def _single(
    console: Console,
    command: Command[Any],
    preset: str,
    name: str,
    own: Mapping[str, Option],
    settings: Mapping[str, Option],
) -> None:
    option = own.get(plain(name)) or settings.get(plain(name))
    if option is None and name in SHORTCUTS:
        option = settings[SHORTCUTS[name]]
    if option is None:
        near = candidates(name, [*settings, *own])
        if len(near) != 1:
            known = [*blocks(), *settings, *(o.name for o in own.values())]
            raise UserError(
                f"--help {printable(name)} is neither a block nor an option.{did_you_mean(name, known)} Give one of: "
                f"{', '.join(b for b in blocks() if b and '.' not in b)}; --help-all shows everything."
            )
        option = own.get(near[0]) or settings[near[0]]
    lines: list[tuple[str, str]] = [("", option.doc)]
    default = shown_value(option.default)
    if not (option.is_bool and option.setting is None):
        lines.append(("Allowed:", allowed_by(option.annotation, option.field)))
    where = f" (preset {printable(preset)})" if option.setting else ""
    lines.append(("Default:", f"{default or ('empty' if option.is_list else 'none')}{where}"))
    if option.setting:
        block, _, last = option.setting.rpartition(".")
        written = f"{last}: VALUE"
        for part in reversed(block.split(".") if block else []):
            written = f"{part}: {{{written}}}"
        lines.append(("In a file:", written))
        lines += [("Short:", f"--{short}") for short, dotted in SHORTCUTS.items() if dotted == option.setting]
    table = Table.grid(padding=(0, 1))
    for label, text in lines[1:]:
        table.add_row(Text(f"  {label}"), Text(text))
    kind = "" if option.is_bool and option.setting is None else f" {kind_of(option)}"
    console.print(Group(Text(f"--{option.name}{kind}", style="cyan"), Text(f"  {option.doc}"), table))
