"""Commands that can be copied, and messages worded for their reader: in a shell or in Python."""

from __future__ import annotations

import functools
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from singer_ray.errors import UserError

Given = ParamSpec("Given")
Returned = TypeVar("Returned")


SCRIPT = "singer-ray"
"""The installed command."""


def called(name: str = "") -> str:
    """A command as this process was started: `singer-ray NAME` or `python -m singer_ray.NAME`; "" lists all."""
    if Path(sys.argv[0]).name == SCRIPT:
        return f"{SCRIPT} {name}".rstrip()
    return f"python -m singer_ray.{name}".rstrip(".")


def command(name: str, *arguments: object) -> str:
    """`python -m singer_ray.NAME ARGUMENTS`, as a shell reads it: quoted where it has to be."""
    return shlex.join(["python", "-m", f"singer_ray.{name}", *map(str, arguments)])


ARGUMENTS = {
    "out": "out",
    "overwrite": "overwrite=True",
    "resume": "resume",
    "preset": "preset",
    "space": "space",
    "trials": "trials",
}
"""Options of the commands that are arguments of `distill` and `sweep`."""
SETTINGS = {
    "workers": "train.workers",
    "storage": "train.storage",
    "concurrent": "search.concurrent",
    "seed": "seed",
    "time-budget": "search.time_budget",
    "export": "export.to",
}
"""Options that are settings in Python, under other names; dotted ones keep theirs."""
_WORD = r"(?:'[^']*'(?:\"'\"'[^']*')*|[^\s'`,;)]+?)(?=[.,;)]?(?:\s|$)|[`)])"
_RESUME = re.compile(rf"`?python -m singer_ray\.tune --resume ({_WORD})`?")
_COMMAND = r"python -m singer_ray\.\w+(?: +(?:--[\w.-]+|[\w./:-]+(?=[ `)])))*"
_OPTION = re.compile(rf"(?P<command>{_COMMAND})|(?<![\w-])--(?P<name>[a-z][\w-]*(?:\.\w+)*)")


def in_python(message: str) -> str:
    """A command's message reworded for Python: `--out` becomes `out`, and `--resume` becomes `sweep(resume=...)`."""
    message = _RESUME.sub(lambda match: f"singer_ray.sweep(resume={' '.join(shlex.split(match[1]))!r})", message)
    return _OPTION.sub(lambda match: match["command"] or _named(match["name"]), message)


def speaks_python(call: Callable[Given, Returned]) -> Callable[Given, Returned]:
    """Wraps a function so that its UserErrors name arguments instead of options."""

    @functools.wraps(call)
    def speaking(*given: Given.args, **named: Given.kwargs) -> Returned:
        try:
            return call(*given, **named)
        except UserError as error:
            error.args = (in_python(str(error)), *error.args[1:])
            raise

    return speaking


def _named(option: str) -> str:
    plain = option.replace("_", "-")
    if "." in option:
        return option
    known = ARGUMENTS.get(plain) or SETTINGS.get(plain)
    return f"`{known}`" if known else f"--{option}"
