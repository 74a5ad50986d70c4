"""Reads a command line: what is given by name, what has none, and one line for whatever does not fit."""

from __future__ import annotations

import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from singer_ray import __version__
from singer_ray.config import Config, load_preset
from singer_ray.config.given import GivenNames, settle
from singer_ray.config.names import did_you_mean, plain
from singer_ray.config.places import with_places
from singer_ray.config.tree import allowed
from singer_ray.errors import UserError, printable
from singer_ray.options.command import LOUDNESS, Command, Flags, Option, options_of, own_options
from singer_ray.options.help import Topic, show_help

_BOOLEAN = re.compile(r"true|false|yes|no|on|off|1|0", re.IGNORECASE)
_LETTER = re.compile(r"-[A-Za-z]")


@dataclass
class Given:
    """A command line, read: the values of each option by its plain name, and the arguments without a name."""

    values: dict[str, list[str]] = field(default_factory=dict)
    unnamed: list[str] = field(default_factory=list)


def parse(command: Command[Flags], argv: Sequence[str]) -> tuple[Config, Flags]:
    """The resolved configuration and the command's own flags. Exits after --help; raises UserError."""
    if "--version" in argv:
        print(f"singer_ray {__version__}")
        raise SystemExit(0)
    topic = _topic(argv)
    preset = _preset(argv)
    config = load_preset(preset)
    if topic is not None:
        show_help(command, config, preset, topic)
        raise SystemExit(0)
    options = options_of(command, config)
    given = _read(command, options, argv)
    settings: dict[str, Any] = {}
    flags: dict[str, Any] = {}
    for name, words in given.values.items():
        option = options[name]
        if option.setting:
            settings[option.setting] = _raw(option, words)
        elif name != "preset":
            flags[name] = "" if not words and name in command.optional else _checked(option, words)
    names = GivenNames(settings)
    names.start = config
    try:
        config = config.override(settings)
    except UserError as error:
        raise UserError(str(error).replace(" (the configuration)", "")) from error
    config = settle(config, names, distils=command.distils)
    if command.positional:
        hint = typing.get_type_hints(command.flags)[command.positional]
        flags[command.positional] = TypeAdapter(hint).validate_python(tuple(given.unnamed))
    if command.given:
        flags[command.given] = names
    if command.typed:
        flags[command.typed] = given.values
    return config, with_places(command.flags(**flags), optional=command.optional, metavar=command.metavar)


def _topic(argv: Sequence[str]) -> Topic | None:
    """What help is wanted, if any: `--help`, `--help TOPIC`, `--help=TOPIC`, `--help-all`."""
    for place, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if plain(name) == "help_all" and name.startswith("--"):
            return Topic("all")
        if name in ("-h", "--help"):
            following = "".join(argv[place + 1 : place + 2])
            return Topic(value if equals else "" if following.startswith("-") else following)
    return None


def _preset(argv: Sequence[str]) -> str:
    preset = "demo"
    for place, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name == "--preset":
            following = argv[place + 1 : place + 2]
            if not equals and not following:
                raise UserError("--preset needs a value. --help explains it.")
            preset = value if equals else following[0]
    return preset


def _read(command: Command[Any], options: dict[str, Option], argv: Sequence[str]) -> Given:
    given = Given()
    values: list[str] | None = None
    room = 0.0
    for word in argv:
        if word.startswith("--") or _LETTER.match(word):
            name, equals, value = word.partition("=")
            key = plain(name)
            if key not in options or not name.startswith("--"):
                raise _unknown(command, options, name)
            values = given.values[key] = [value] if equals else []
            room = _room(options[key]) - len(values)
        elif values is None or (command.positional and (room <= 0 or not _fits(options[key], word))):
            if not command.positional:
                raise UserError(
                    f"Unrecognized argument {printable(word)!r}: every option has a name that starts with --. "
                    "--help-all lists all options."
                )
            room = 0
            given.unnamed.append(word)
        else:
            values.append(word)
            room -= 1
    return given


def _room(option: Option) -> float:
    """How many values an option takes where arguments without a name may follow."""
    return float("inf") if option.is_list else 1.0


def _fits(option: Option, word: str) -> bool:
    """Whether a word behind a flag is its value rather than an argument of its own."""
    return option.setting is not None or not option.is_bool or _BOOLEAN.fullmatch(word) is not None


def _unknown(command: Command[Any], options: dict[str, Option], name: str) -> UserError:
    shown = [*own_options(command).values(), *options.values()]
    known = [*dict.fromkeys(option.name for option in shown), *command.shortcuts, *LOUDNESS]
    hint = did_you_mean(name, known, "--")
    blocks = {option.name.rpartition(".")[0] for option in shown}
    if not hint and plain(name) in blocks:
        hint = f" It is a block of settings: --help {plain(name)} lists them."
    return UserError(f"Unknown option {printable(name)}.{hint} --help-all lists all options.")


def _raw(option: Option, words: Sequence[str]) -> Any:
    """The value of a setting as it was typed, for the configuration to check."""
    if option.is_list:
        return list(words)
    if option.is_bool and not words:
        return True
    if len(words) != 1:
        problem = f"takes one value, not {printable(' '.join(words))}" if words else "needs a value"
        raise UserError(f"--{option.name} {problem}. --help {option.name} explains it.")
    return None if _is_none(option, words[0]) else words[0]


def _checked(option: Option, words: Sequence[str]) -> Any:
    """The value of an own flag."""
    if option.is_bool and not words:
        return True
    if not option.is_list and len(words) != 1:
        problem = f"takes one value, not {printable(' '.join(words))}" if words else "needs a value"
        raise UserError(f"--{option.name} {problem}. --help {option.name} explains it.")
    if not option.is_list and _is_none(option, words[0]):
        return None
    try:
        return TypeAdapter(option.annotation).validate_python(tuple(words) if option.is_list else words[0])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        value = words[0] if len(words) == 1 else " ".join(words)
        raise UserError(
            f"--{option.name} is {printable(value)!r}. Allowed: {allowed(first['type'], first['msg'])}."
        ) from error


def _is_none(option: Option, word: str) -> bool:
    return word == "None" or (option.takes_none and word.lower() in ("none", "null") and word not in option.choices)
