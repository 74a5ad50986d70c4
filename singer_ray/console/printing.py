"""The consoles that commands print on; what they print also goes into the command's log."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Any

from rich.control import Control

from singer_ray.console import runlog
from singer_ray.console.terminal import Terminal

WIDTH = 180
"""Width of a table, in characters, when there is no terminal."""


class LoggedConsole(Terminal):
    """A console whose lines also go into the running command's log, whether or not the screen shows them."""

    def print(self, *objects: Any, **options: Any) -> None:
        if objects and not all(isinstance(each, Control) for each in objects):
            runlog.keep(lambda: _plain(objects, options))
        super().print(*objects, **options)


def screen() -> LoggedConsole:
    """A console on standard output, as wide as the terminal."""
    return LoggedConsole(width=None if sys.stdout.isatty() else WIDTH)


def _plain(objects: Sequence[Any], options: dict[str, Any]) -> str:
    text = all(isinstance(each, str) for each in objects)
    drawn = io.StringIO()
    Terminal(file=drawn, width=10_000 if text else WIDTH, color_system=None).print(*objects, **options)
    return drawn.getvalue()
