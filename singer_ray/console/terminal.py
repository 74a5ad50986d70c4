"""Output for a terminal that may be narrow or go away: lines that can be copied, tables that fit."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from rich.box import HEAVY_HEAD, Box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from singer_ray.console.wording import in_python
from singer_ray.errors import printable, visible


class Lasting:
    """The file of a console whose other end may go away: a closed terminal, a pipe whose reader has left, a full disk.

    What can no longer be written is dropped; characters that the encoding lacks are written as escapes. Without `file`,
    it writes to whatever standard output is at that moment.
    """

    def __init__(self, file: IO[str] | None = None) -> None:
        self.own = file
        self.gone = False

    @property
    def file(self) -> IO[str]:
        file = sys.stdout if self.own is None else self.own
        return getattr(file, "rich_proxied_file", file)  # Rich's live tables wrap standard output

    def write(self, text: str) -> int:
        if not self.gone:
            try:
                return self.file.write(text)
            except UnicodeEncodeError:
                coding = getattr(self.file, "encoding", None) or "ascii"
                return self.write(text.encode(coding, "backslashreplace").decode(coding))
            except (OSError, ValueError) as error:  # ValueError: the file is closed
                self._leave(error)
        return len(text)

    def flush(self) -> None:
        if not self.gone:
            try:
                self.file.flush()
            except (OSError, ValueError) as error:
                self._leave(error)

    def _leave(self, error: Exception) -> None:
        """Discards what Python still buffers for the file, which would fail again when the process ends."""
        if isinstance(error, BlockingIOError):
            return  # full for the moment only
        self.gone = True
        with contextlib.suppress(OSError, ValueError):
            number = self.file.fileno()
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)
            os.close(null)

    def __getattr__(self, name: str) -> Any:
        if name == "rich_proxied_file":
            raise AttributeError(name)  # otherwise Rich would bypass this object
        return getattr(self.file, name)


def lasting(console: Console) -> Console:
    """The same console, which no longer raises errors of the file that it writes to."""
    if not isinstance(console._file, Lasting) and not console.is_jupyter:
        console.file = Lasting(console._file or (sys.stderr if console.stderr else None))  # type: ignore[assignment]
    return console


class Terminal(Console):
    """A Rich console that shows texts literally.

    Paths, class names and messages of servers may hold `[...]`, which Rich would take for its markup, and escapes that
    the terminal would obey. Here neither has a meaning, in lines or in the cells of tables. `rich.text.Text` keeps its
    own styles.
    """

    def render_str(self, text: str, **given: Any) -> Text:
        return super().render_str(visible(text), **{**given, "markup": False, "emoji": False})


class PythonConsole(Terminal):
    """A console for callers of Python functions: what `log` prints on it names arguments instead of options."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(Text(in_python(o.plain)) if type(o) is Text else o for o in objects), **options)


def log(console: Console, line: str) -> None:
    """Prints a line as it is: no markup, no colours, no line breaks that would spoil a command when it is copied."""
    console.print(Text(visible(line)), highlight=False, soft_wrap=True)


def tolerate_encodings() -> None:
    """Lets standard output and error escape what their encoding lacks, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    head: str
    cells: Sequence[str]
    right: bool = True
    needed: bool = False
    """Whether it is shown however narrow the screen is."""


class FittedTable:
    """A table that leaves out columns for which the screen has no room, the last ones first, and names them.

    Args:
        styles: Rich styles of the rows.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        title: str | None = None,
        styles: Sequence[str] = (),
        box: Box | None = HEAVY_HEAD,
    ) -> None:
        self.columns, self.title, self.styles, self.box = list(columns), title, styles, box

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        kept = fitting(self.columns, options.max_width)
        shown = Table(title=self.title and Text(printable(self.title)), title_justify="left", box=self.box)
        for column in kept:
            head = Text(printable(column.head))
            shown.add_column(head, justify="right" if column.right else "left", no_wrap=True, overflow="ellipsis")
        for number, row in enumerate(zip(*(column.cells for column in kept))):
            style = self.styles[number] if number < len(self.styles) else ""
            shown.add_row(*(Text(printable(cell)) for cell in row), style=style)
        yield shown
        left_out = [printable(column.head) for column in self.columns if column not in kept]
        if left_out:
            yield Text(f"No room for: {', '.join(left_out)}", style="dim")


def fitting(columns: Sequence[Column], width: int) -> list[Column]:
    """The columns that fit into so many characters: the needed ones, then as many others as there is room for."""
    room = width - 1 - sum(_width(column) for column in columns if column.needed)
    kept = []
    for column in columns:
        if not column.needed:
            room -= _width(column)
        if column.needed or room >= 0:
            kept.append(column)
    return kept


def _width(column: Column) -> int:
    """Characters of the longest cell, the padding on either side, and a rule."""
    return max(map(cell_len, map(printable, (column.head, *column.cells)))) + 3


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Turns SIGTERM (of a scheduler) and SIGHUP (of a closing terminal) into KeyboardInterrupt while the block runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    # Under nohup SIGHUP is ignored, and stays so.
    polite = [s for s in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in polite}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
