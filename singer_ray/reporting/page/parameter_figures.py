"""Figures of what each parameter did; None where there is nothing to draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from plotly import graph_objects

from singer_ray.reporting.page.points import points_of
from singer_ray.reporting.page.style import COLOURS, SCALE, Figure, figure, rounded
from singer_ray.reporting.reading.axis import Axis, log_ticks
from singer_ray.reporting.reading.importance import importances
from singer_ray.reporting.reading.record import SearchRecord, TrialRecord
from singer_ray.reporting.text import MISSING, number
from singer_ray.search.study.schema import COMPLETE, PRUNED

JITTER = 0.16


def parallel_coordinates(search: SearchRecord, objective: int) -> Figure | None:
    """Finished trials as lines over all parameters; a parameter that a trial lacks is at the dash at the bottom."""
    trials = [t for t in search.finished if t.values]
    axes = [Axis(name, d) for name, d in search.distributions.items()]
    if len(trials) < 2 or len(axes) < 1:
        return None
    names = search.labels
    values = [t.values[objective] for t in trials if t.values]
    dimensions = [_dimension(axis, names[axis.name], trials) for axis in axes]
    spread = max(values) - min(values) or 1.0
    dimensions.append(
        {
            "label": search.objectives.names[objective],
            "values": rounded(values),
            "range": [min(values) - 0.02 * spread, max(values) + 0.02 * spread],
        }
    )
    best_first = search.objectives.modes[objective] == "min"
    return figure(
        [
            graph_objects.Parcoords(
                dimensions=dimensions,
                labelangle=-18,
                labelside="top",
                line={
                    "color": rounded(values),
                    "colorscale": SCALE,
                    "reversescale": best_first,
                    "showscale": True,
                    "colorbar": {"thickness": 10, "len": 0.9, "outlinewidth": 0},
                },
            )
        ],
        height=460,
    ).update_layout(margin={"l": 70, "r": 40, "t": 96, "b": 24})


def importance_bars(search: SearchRecord, objective: int) -> Figure | None:
    """How much each parameter decided whether a trial was among the best; None where too few have finished."""
    shares = importances(search, objective)
    if not shares:
        return None
    ordered = sorted(shares.items(), key=lambda each: each[1])
    names = search.labels
    made = figure(
        [
            graph_objects.Bar(
                x=rounded([v for _, v in ordered], 3),
                y=[names[n] for n, _ in ordered],
                orientation="h",
                marker={"color": COLOURS[COMPLETE]},
                text=[f"{v:.0%}" for _, v in ordered],
                textposition="outside",
                cliponaxis=False,
                customdata=[n for n, _ in ordered],
                hovertemplate="%{customdata}: %{text}<extra></extra>",
            )
        ],
        height=90 + 32 * len(ordered),
        legend=False,
        bargap=0.35,
        xaxis={
            "title": {"text": "share of importance"},
            "tickformat": ".0%",
            "range": [0, 1.12 * max(shares.values())],
        },
        yaxis={"automargin": True, "ticksuffix": "  "},
    )
    return made.update_layout(margin={"t": 12, "l": 20})


def slice_of(search: SearchRecord, name: str, objective: int, *, height: int = 270) -> Figure | None:
    """One parameter against one objective."""
    axis = Axis(search.labels[name], search.distributions[name])
    trials = [t for t in search.trials if t.values and name in t.parameters and t.state in (COMPLETE, PRUNED)]
    if not trials:
        return None

    def place(trial: TrialRecord) -> float:
        at = axis.place(trial.parameters[name])
        if axis.choices is None:
            return at
        return at + JITTER * (2 * (trial.number * 0.6180339887 % 1) - 1)  # so that equal choices do not hide each other

    best = search.best_in(objective)
    groups = [
        ([t for t in trials if t.state == PRUNED], PRUNED, 5.0),
        ([t for t in trials if t.state == COMPLETE and t is not best], COMPLETE, 6.0),
        ([t for t in trials if t is best], COMPLETE, 12.0),
    ]
    traces = []
    for own, state, size in groups:
        trace = points_of(own, objective, state, place, search, size=size, lead=size > 10)
        trace.customdata = [[t.id, number(t.parameters[name])] for t in own]
        shown = f"{name} %{{customdata[1]}}<br>{search.objectives.names[objective]} %{{y}}"
        trace.hovertemplate = f"trial %{{customdata[0]}}<br>{shown}<extra></extra>"
        traces.append(trace)
    made = figure(
        [t for t in traces if len(t.x)],
        height=height,
        legend=False,
        xaxis=axis.layout(),
        yaxis={"title": {"text": search.objectives.names[objective]}, "zeroline": False, "nticks": 6},
    )
    return made.update_layout(margin={"l": 58, "r": 10, "t": 8, "b": 46})


def _dimension(axis: Axis, label: str, trials: Sequence[TrialRecord]) -> dict[str, Any]:
    """An axis of parallel coordinates, logarithms taken here, with a place below for trials without the parameter."""
    scale = math.log10 if axis.log else float
    low, high = scale(axis.low), scale(axis.high)
    room = (high - low) or 1.0
    places = [scale(axis.place(t.parameters[axis.name])) if axis.name in t.parameters else None for t in trials]
    if axis.choices is not None:
        ticks = [(float(n), str(c)) for n, c in enumerate(axis.choices)]
    elif axis.log:
        ticks = [(math.log10(t), f"{t:g}") for t in log_ticks(axis.low, axis.high)]
    else:
        ticks = (
            [(low + room * n / 4, f"{low + room * n / 4:.3g}") for n in range(5)] if high > low else [(low, f"{low:g}")]
        )
    bottom = low - 0.22 * room
    lacking = any(place is None for place in places)
    if lacking:
        ticks = [(bottom, MISSING), *ticks]
    return {
        "label": label,
        "values": rounded([bottom if p is None else p for p in places]),
        "range": [bottom if lacking else low - 0.02 * room, high + 0.02 * room],
        "tickvals": [t for t, _ in ticks],
        "ticktext": [t for _, t in ticks],
    }
