"""The one error that users meet."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something that the person who started the command can mend.

    The message is one line: what is wrong, the value given, what is allowed, what to do next. Commands print it
    without a traceback and exit with status 2.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean X?` for the closest of `known`, or nothing when none is close."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {found[0]}?" if found else ""


def printable(text: object, limit: int = 300) -> str:
    """What comes from outside (names, values, messages of servers), as one short line that a terminal shows as it is.

    Control characters and terminal escapes become visible (`\\x1b`), undecodable bytes too, white space becomes a
    single space, and what is longer than `limit` characters loses its middle. Print it with `markup=False` where Rich
    prints: it may hold `[...]`.
    """
    found = text if isinstance(text, str) else str(text)
    if len(found) > 4 * limit:
        found = f"{found[: 2 * limit]} ... {found[-2 * limit :]}"
    line = " ".join(found.split())
    line = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line)
    return line if len(line) <= limit else f"{line[: limit // 2]} ... {line[-limit // 2 :]}"
