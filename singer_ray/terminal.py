"""What the commands print to: a console that shows texts as they are, wherever they come from."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from singer_ray.errors import visible


class Terminal(Console):
    """A Rich console on which a text is a text.

    Paths, class names and messages of servers may hold `[...]`, which Rich would take for its markup, and escapes that
    the terminal would obey. Here neither means anything, in lines and in the cells of tables. `rich.text.Text` is
    shown as it was made.
    """

    def render_str(self, text: str, **given: Any) -> Text:
        return super().render_str(visible(text), **{**given, "markup": False, "emoji": False})
