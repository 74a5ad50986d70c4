"""The figures of a report, each of a SearchRecord; None where there is nothing to draw."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import combinations
from typing import Any

from plotly import graph_objects

from singer_ray.reporting.importance import importances
from singer_ray.reporting.record import SearchRecord, TrialRecord, last_moment
from singer_ray.reporting.style import (
    COLOURS,
    LEAD,
    SCALE,
    WORDS,
    Axis,
    Figure,
    figure,
    log_ticks,
    rounded,
    thinned,
)
from singer_ray.reporting.text import MISSING, duration, number
from singer_ray.search.study.schema import COMPLETE, FAIL, PRUNED, QUEUED, RUNNING

JITTER = 0.16


def history(search: SearchRecord, objective: int) -> Figure | None:
    """Each trial's value by number, and the best so far."""
    valued = sorted((t for t in search.trials if t.values), key=lambda t: t.number)
    if not valued:
        return None
    name = search.objectives.names[objective]
    traces = [
        _points([t for t in valued if t.state == state], objective, state, lambda t: t.number, search)
        for state in (PRUNED, QUEUED, RUNNING, COMPLETE)
    ]
    best: list[tuple[int, float]] = []
    for trial in valued:
        if trial.state == COMPLETE and trial.values:
            value = trial.values[objective]
            best.append(
                (trial.number, value if not best or search.better(objective, value, best[-1][1]) else best[-1][1])
            )
    if best:
        best.append((max(t.number for t in search.trials), best[-1][1]))
        traces.append(
            graph_objects.Scatter(
                x=[n for n, _ in best],
                y=rounded([v for _, v in best]),
                mode="lines",
                name="best so far",
                line={"color": LEAD, "width": 2.5, "shape": "hv"},
                hovertemplate="best so far %{y}<extra></extra>",
            )
        )
    failed = sorted(t.number for t in search.trials if t.state == FAIL)
    if failed:
        traces.append(
            graph_objects.Scatter(
                x=failed,
                y=[0.015] * len(failed),
                yaxis="y2",
                mode="markers",
                name=WORDS[FAIL],
                marker={"symbol": "x", "size": 7, "color": COLOURS[FAIL]},
                customdata=[f"{n:03d}" for n in failed],
                hovertemplate="trial %{customdata}: failed<extra></extra>",
            )
        )
    return figure(
        [t for t in traces if len(t.x)],
        xaxis={"title": {"text": "trial"}, "zeroline": False},
        yaxis={"title": {"text": name}, "zeroline": False},
        yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
    )


def learning_curves(search: SearchRecord) -> Figure | None:
    """The stopping metric of every trial by epoch; stopped ones dimmed, the best one in front."""
    best = search.best
    kinds = ((PRUNED, 0.45, 1.0), (FAIL, 0.5, 1.0), (QUEUED, 0.9, 1.6), (RUNNING, 0.9, 1.6), (COMPLETE, 0.75, 1.2))
    traces = [
        _curves(
            [t for t in search.trials if t.state == state and t is not best],
            COLOURS[state],
            opacity,
            width,
            WORDS[state],
        )
        for state, opacity, width in kinds
    ]
    if best:
        traces.append(_curves([best], LEAD, 1.0, 3.0, f"best: trial {best.id}"))
    traces = [t for t in traces if len(t.x)]
    if not traces:
        return None
    return figure(
        traces,
        xaxis={"title": {"text": "epoch"}, "zeroline": False, "rangemode": "tozero"},
        yaxis={"title": {"text": search.objectives.stop_metric}, "zeroline": False},
    )


def pareto(search: SearchRecord, one: int, other: int) -> Figure | None:
    """Two objectives against one another, the front marked: over all objectives, a line when there are but two."""
    shown = [t for t in search.trials if t.values and t.state in (COMPLETE, PRUNED)]
    if not search.finished:
        return None
    names = search.objectives.names
    groups = [
        ("stopped early", [t for t in shown if t.state == PRUNED], COLOURS[PRUNED], 6, "circle-open"),
        ("finished", [t for t in shown if t.state == COMPLETE and not t.front], COLOURS[COMPLETE], 7, "circle"),
        ("Pareto front", sorted(search.front, key=lambda t: (t.values or (0,))[one]), LEAD, 11, "diamond"),
    ]
    traces = []
    for name, trials, colour, size, symbol in groups:
        line = name == "Pareto front" and len(names) == 2
        traces.append(
            graph_objects.Scatter(
                x=rounded([t.values[one] for t in trials if t.values]),
                y=rounded([t.values[other] for t in trials if t.values]),
                mode="lines+markers" if line else "markers",
                name=name,
                customdata=[t.id for t in trials],
                marker={"color": colour, "size": size, "symbol": symbol, "opacity": 0.55 if size < 7 else 0.9},
                line={"color": colour, "width": 1.5, "dash": "dot", "shape": _corner(search, one, other)},
                hovertemplate=f"trial %{{customdata}}<br>{names[one]} %{{x}}<br>{names[other]} %{{y}}<extra></extra>",
            )
        )
    axes = [{"title": {"text": _directed(search, n)}, "zeroline": False} for n in (one, other)]
    return figure([t for t in traces if len(t.x)], height=430, xaxis=axes[0], yaxis=axes[1])


def pareto_pairs(search: SearchRecord) -> list[Figure]:
    """One picture for each pair of objectives."""
    found = [pareto(search, one, other) for one, other in combinations(range(len(search.objectives.names)), 2)]
    return [each for each in found if each is not None]


def pareto_space(search: SearchRecord) -> Figure | None:
    """Three objectives as a space to turn; None for another number of them."""
    if len(search.objectives.names) != 3 or not search.finished:
        return None
    traces = []
    for name, marked, colour, size in (("finished", False, COLOURS[COMPLETE], 3.5), ("Pareto front", True, LEAD, 6)):
        trials = [t for t in search.finished if t.front == marked]
        x, y, z = (rounded([t.values[n] for t in trials if t.values]) for n in range(3))
        lines = "<br>".join(f"{n} %{{{axis}}}" for n, axis in zip(search.objectives.names, "xyz"))
        traces.append(
            graph_objects.Scatter3d(
                x=x,
                y=y,
                z=z,
                mode="markers",
                name=name,
                customdata=[t.id for t in trials],
                marker={
                    "color": colour,
                    "size": size,
                    "symbol": "diamond" if marked else "circle",
                    "line": {"width": 0},
                },
                hovertemplate=f"trial %{{customdata}}<br>{lines}<extra></extra>",
            )
        )
    axes = {f"{axis}axis": {"title": {"text": name}} for name, axis in zip(search.objectives.names, "xyz")}
    made = figure(
        [t for t in traces if len(t.x)],
        height=540,
        scene=axes | {"camera": {"eye": {"x": 1.6, "y": 1.6, "z": 0.8}, "center": {"x": 0, "y": 0, "z": -0.15}}},
    )
    return made.update_layout(margin={"l": 0, "r": 0, "t": 34, "b": 0})


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
    found = importances(search, objective)
    if not found:
        return None
    ordered = sorted(found.items(), key=lambda each: each[1])
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
        xaxis={"title": {"text": "share of importance"}, "tickformat": ".0%", "range": [0, 1.12 * max(found.values())]},
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
        trace = _points(own, objective, state, place, search, size=size, lead=size > 10)
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


def timeline(search: SearchRecord) -> Figure | None:
    """Which host had which trial when, in as many rows as trials ran at a time; one that runs goes on to the last known
    moment, and one that waits is not there."""
    running = [t for t in search.trials if t.begin and t.state != QUEUED]
    timed = sorted(running, key=lambda t: (t.begin or datetime.min, t.number))
    last = last_moment(search.trials, search.sessions)
    if not timed or last is None:
        return None
    free: list[tuple[datetime, int]] = []
    bars: dict[str, list[tuple[TrialRecord, int, datetime, datetime]]] = {}
    rows = 0
    for trial in timed:
        begin, end = trial.begin or last, trial.end or last
        if free and free[0][0] <= begin:
            row = heapq.heappop(free)[1]
        else:
            row, rows = rows, rows + 1
        heapq.heappush(free, (end, row))
        bars.setdefault(trial.state, []).append((trial, row, begin, end))
    traces = [
        graph_objects.Bar(
            base=[b.isoformat(timespec="seconds") for _, _, b, _ in bars[state]],
            x=[max(1.0, round((e - b).total_seconds() * 1000)) for _, _, b, e in bars[state]],
            y=[r + 1 for _, r, _, _ in bars[state]],
            orientation="h",
            name=WORDS[state],
            width=0.82,
            marker={"color": COLOURS[state], "line": {"width": 0.6, "color": "rgba(128,128,128,.55)"}},
            customdata=[[t.id, duration((e - b).total_seconds()), t.epochs] for t, _, b, e in bars[state]],
            hovertemplate="trial %{customdata[0]}<br>%{customdata[1]}, %{customdata[2]} epochs<extra></extra>",
        )
        for state in COLOURS
        if state in bars
    ]
    bands = (
        [
            {
                "type": "rect",
                "xref": "x",
                "yref": "paper",
                "x0": _at(s.begin),
                "x1": _at(s.end) if s.end else last.isoformat(),
                "y0": 0,
                "y1": 1,
                "fillcolor": "rgba(128,128,128,.10)",
                "line": {"width": 0},
                "layer": "below",
            }
            for s in search.sessions
        ]
        if len(search.sessions) > 1
        else []
    )
    return figure(
        traces,
        height=110 + max(60, min(460, 24 * rows)),
        barmode="overlay",
        shapes=bands,
        xaxis={"type": "date"},
        yaxis={"title": {"text": "at a time"}, "range": [rows + 0.6, 0.4], "dtick": max(1, rows // 8)},
    )


def _points(
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


def _curves(trials: Iterable[TrialRecord], colour: str, opacity: float, width: float, name: str) -> Any:
    """Many curves as one trace, with gaps between: hundreds of traces would be slow."""
    x: list[int | None] = []
    y: list[float | None] = []
    ids: list[str | None] = []
    for trial in trials:
        points = thinned(trial.curve)
        if not points:
            continue
        x += [*(epoch for epoch, _ in points), None]
        y += [*rounded([value for _, value in points], 4), None]
        ids += [*([trial.id] * len(points)), None]
    return graph_objects.Scatter(
        x=x,
        y=y,
        mode="lines+markers",
        name=name,
        opacity=opacity,
        line={"color": colour, "width": width},
        marker={"size": 3 if width < 3 else 6, "color": colour},
        connectgaps=False,
        customdata=ids,
        hovertemplate="trial %{customdata}<br>epoch %{x}: %{y}<extra></extra>",
    )


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


def _directed(search: SearchRecord, objective: int) -> str:
    better = "higher" if search.objectives.modes[objective] == "max" else "lower"
    return f"{search.objectives.names[objective]} ({better} is better)"


def _corner(search: SearchRecord, one: int, other: int) -> str:
    """The step line that bounds what the front dominates."""
    return "hv" if search.objectives.modes[one] == "min" else "vh"


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat(timespec="seconds")
