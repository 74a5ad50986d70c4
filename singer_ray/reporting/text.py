"""Numbers, names and times as people read them."""

from __future__ import annotations

import html
from collections.abc import Iterable
from datetime import datetime
from itertools import pairwise
from typing import Any

MISSING = "—"


def escape(value: Any) -> str:
    return html.escape(str(value), quote=True)


def number(value: Any) -> str:
    """Four significant digits; whole numbers in full; text as it is; a dash for what is missing."""
    if value is None:
        return MISSING
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15 and (isinstance(value, int) or abs(value) >= 1000):
        return f"{int(value):,}"
    return f"{value:.4g}"


def score(value: float | None) -> str:
    """Four significant digits, trailing zeros kept, so that a column lines up."""
    if value is None:
        return MISSING
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.4g}".rstrip(".")


def spread_of(value: float | None) -> str:
    """A spread, to two significant digits."""
    return MISSING if value is None else f"{value:.2g}"


def duration(seconds: float | None) -> str:
    """45 s, 12 min 5 s, 3 h 20 min, 2 d 4 h."""
    if seconds is None:
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f} s"
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    total = round(seconds)
    for (size, name), (smaller, lesser) in pairwise(units):
        if total >= size:
            rest = total % size // smaller
            return f"{total // size} {name} {rest} {lesser}" if rest else f"{total // size} {name}"
    return f"{total} s"


def moment(when: datetime | float | None) -> str:
    """Local time to the minute."""
    if when is None:
        return MISSING
    return (when if isinstance(when, datetime) else datetime.fromtimestamp(when)).strftime("%Y-%m-%d %H:%M")


def plural(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Dotted name -> its shortest end that no other name shares."""
    listed = list(names)

    def end(name: str, parts: int) -> str:
        return ".".join(name.split(".")[-parts:])

    short = {}
    for name in listed:
        lengths = range(1, name.count(".") + 2)
        short[name] = next(
            (end(name, n) for n in lengths if sum(end(other, n) == end(name, n) for other in listed) == 1), name
        )
    return short
