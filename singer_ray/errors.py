"""The one error that users meet, what is behind an error, and how text from outside is shown."""

from __future__ import annotations

import difflib
import itertools
import re
import reprlib
from collections.abc import Iterable, Iterator
from typing import Any


class UserError(Exception):
    """Something that the person who started the command can mend.

    The message is one line: what is wrong, the value given, what is allowed, what to do next. Commands print it
    without a traceback and exit with status 2.
    """


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, then whatever is behind it, depth first.

    Behind an error is what it was raised from, and what Ray wraps: the `cause` of a task that failed, and the
    `worker_failures` of a group of workers.
    """
    yield error
    failures = getattr(error, "worker_failures", None) or {}
    for behind in (getattr(error, "cause", None), *failures.values(), error.__cause__):
        if isinstance(behind, BaseException):
            yield from causes(behind)


def root_cause(error: BaseException) -> BaseException:
    """The error that was raised first; of several, such as those of a group of workers, the first one named."""
    behind = next(itertools.islice(causes(error), 1, None), None)
    return error if behind is None else root_cause(behind)


def user_error_in(error: Exception) -> Exception:
    """The UserError behind an exception that Ray carried here; `error` itself when there is none."""
    behind = next((cause for cause in causes(error) if isinstance(cause, UserError)), None)
    if behind is None:
        return error
    return UserError(str(behind.args[0]) if behind.args else str(behind))


def first_line(error: BaseException) -> str:
    """The first line of what an error says, without its full stop; the name of its class where it says nothing."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__).rstrip(".")


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean X?` for the closest of `known`, or nothing when none is close."""
    closest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {closest[0]}?" if closest else ""


def printable(text: object, limit: int = 300) -> str:
    """What comes from outside (names, values, messages of servers), as one short line that a terminal shows as it is.

    Control characters and terminal escapes become visible (`\\x1b`), undecodable bytes too, white space becomes a
    single space, and what is longer than `limit` characters loses its middle. Print it with `markup=False` where Rich
    prints: it may hold `[...]`.
    """
    whole = text if isinstance(text, str) else str(text)
    if len(whole) > 4 * limit:
        whole = f"{whole[: 2 * limit]} ... {whole[-2 * limit :]}"
    line = visible(" ".join(whole.split()))
    return line if len(line) <= limit else f"{line[: limit // 2]} ... {line[-limit // 2 :]}"


def visible(text: str) -> str:
    """A text of any length whose control characters, terminal escapes and undecodable bytes are visible.

    Line breaks and tabs stay; directions of writing, which would reorder what is read, do not.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def shown(value: Any, limit: int = 300) -> str:
    """The `repr` of a value from outside, as short as `printable` makes it, however large the value is."""
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = brief.maxlong = 2 * limit
    brief.maxlist = brief.maxtuple = brief.maxdict = brief.maxset = 20
    try:
        return printable(brief.repr(value), limit)
    except Exception:  # numbers of more digits than Python writes, objects with a repr of their own
        return f"a {type(value).__name__}"


_MARKS = re.compile(r"[\\`*\[\]<>|~&$]|(?<!\w)_|_(?!\w)|^[#+=-]")


def markdown(text: object, limit: int = 300) -> str:
    """What comes from outside, as text of a Markdown page that is shown as it is: no links, HTML or tables."""
    return _MARKS.sub(r"\\\g<0>", printable(text, limit))


def code(text: object, limit: int = 300) -> str:
    """The same as a span of code, in which nothing but backticks has a meaning; in tables neither has `|`."""
    line = printable(text, limit).replace("|", "\u00a6")
    ticks = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    edge = " " if "`" in line or line != line.strip() or not line else ""
    return f"{ticks}{edge}{line}{edge}{ticks}"
