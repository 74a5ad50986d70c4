"""What commands print: on the screen, and into the log that keeps all of it."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Any

from rich.control import Control

from singer_ray.run_folder import current_log
from singer_ray.terminal import Terminal

WIDTH = 180
"""Columns of a table where no terminal sets them."""


class LoggedConsole(Terminal):
    """A console whose lines also go into the log of the command that runs, whether or not the screen shows them."""

    def print(self, *objects: Any, **options: Any) -> None:
        log = current_log()
        if log is not None and objects and not all(isinstance(each, Control) for each in objects):
            log.write(_plain(objects, options))
        super().print(*objects, **options)


def screen() -> LoggedConsole:
    """A console on standard output, as wide as the terminal."""
    return LoggedConsole(width=None if sys.stdout.isatty() else WIDTH)


def _plain(objects: Sequence[Any], options: dict[str, Any]) -> str:
    text = all(isinstance(each, str) for each in objects)
    drawn = io.StringIO()
    Terminal(file=drawn, width=10_000 if text else WIDTH, color_system=None).print(*objects, **options)
    return drawn.getvalue()
