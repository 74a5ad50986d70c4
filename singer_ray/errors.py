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
