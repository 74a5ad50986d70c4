"""Pieces of HTML that the sections of a report are put together from. Text given to them is HTML already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from singer_ray.reporting.page.style import COLOURS, WORDS
from singer_ray.reporting.reading.record import TrialRecord
from singer_ray.reporting.text import duration, escape, number, score


def card(title: str, content: str, note: str = "", *, attributes: str = "") -> str:
    """A framed part with a head and, in small print, a note."""
    head = f"<h3>{title}</h3>" if title else ""
    return f'<div class="card"{attributes}>{head}{f"<p>{note}</p>" if note else ""}{content}</div>'


def empty(text: str) -> str:
    """What stands where there is nothing to show."""
    return f'<p class="empty">{escape(text)}</p>'


def table(head: Sequence[str], rows: Iterable[str], *, kind: str = "plain", tall: bool = False, name: str = "") -> str:
    """`head` are th elements, `rows` tr elements; a tall table scrolls. In a "sortable" one a click on a head sorts."""
    own = f' id="{name}"' if name else ""
    heads, body = "".join(head), "".join(rows)
    whole = f'<table class="{kind}"{own}><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll{" tall" if tall else ""}">{whole}</div>'


def head(text: str, *, title: str = "", right: bool = False) -> str:
    """The head of a column; to the right for numbers."""
    told = f' title="{escape(title)}"' if title else ""
    return f'<th{" class=n" if right else ""}{told} tabindex="0">{escape(text)}</th>'


def cell(value: Any, text: str | None = None) -> str:
    """A value's cell: numbers to the right, with their sort key; `text` is how they are written. Empty for None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"<td>{'' if value is None else escape(value)}</td>"
    return f'<td class=n data-v="{value:.9g}">{number(value) if text is None else text}</td>'


def score_cell(value: float | None) -> str:
    return cell(value, score(value))


def duration_cell(seconds: float | None) -> str:
    return cell(seconds, duration(seconds))


def right(text: str) -> str:
    """A cell of text, to the right like numbers."""
    return f"<td class=n>{text}</td>"


def row(cells: Iterable[str], attributes: str = "") -> str:
    return f"<tr{attributes}>{''.join(cells)}</tr>"


def tile(label: str, value: str, below: str, *, lead: bool = False, extra: str = "") -> str:
    """One figure of the headline."""
    return (
        f'<div class="tile{" lead" if lead else ""}"><span>{escape(label)}</span><strong>{escape(value)}</strong>'
        f"{extra}<small>{below}</small></div>"
    )


def dot(state: str) -> str:
    return f'<span class="dot" style="background:{COLOURS[state]}"></span>'


def bar(parts: Iterable[tuple[str, float]]) -> str:
    """Shares of states, as one line in their colours."""
    inner = "".join(
        f'<i style="flex:{size:.4g};background:{COLOURS[state]}" title="{WORDS[state]}"></i>' for state, size in parts
    )
    return f'<div class="bar">{inner}</div>'


def link(trial: TrialRecord) -> str:
    """A trial's number, as a link to its row of the leaderboard."""
    return f'<a class="trial" href="#trial-{trial.id}">{trial.id}</a>'
