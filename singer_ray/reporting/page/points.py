"""Trials as points of a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plotly import graph_objects

from singer_ray.reporting.page.style import COLOURS, LEAD, WORDS, rounded
from singer_ray.reporting.reading.record import SearchRecord, TrialRecord
from singer_ray.search.study.schema import PRUNED


def points_of(
    trials: Sequence[TrialRecord],
    objective: int,
    state: str,
    place: Any,
    search: SearchRecord,
    *,
    size: float = 7,
    lead: bool = False,
) -> Any:
    colour = LEAD if lead else COLOURS[state]
    name = search.objectives.names[objective]
    symbol = "star" if lead else "circle-open" if state == PRUNED else "circle"
    return graph_objects.Scatter(
        x=rounded([place(t) for t in trials]),
        y=rounded([t.values[objective] for t in trials if t.values]),
        mode="markers",
        name="best" if lead else WORDS[state],
        customdata=[t.id for t in trials],
        marker={
            "color": colour,
            "size": size,
            "symbol": symbol,
            "opacity": 0.9,
            "line": {"width": 1.4 if state == PRUNED else 0},
        },
        hovertemplate=f"trial %{{customdata}} ({WORDS[state]})<br>{name} %{{y}}<extra></extra>",
    )
