"""Figures of the trials of a search: values by number, curves, hosts; None where there is nothing to draw."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from plotly import graph_objects

from singer_ray.reporting.page.points import points_of
from singer_ray.reporting.page.style import COLOURS, LEAD, WORDS, Figure, figure, rounded, thinned
from singer_ray.reporting.reading.record import SearchRecord, TrialRecord, last_moment
from singer_ray.reporting.text import duration
from singer_ray.search.study.schema import COMPLETE, FAIL, PRUNED, QUEUED, RUNNING


def history(search: SearchRecord, objective: int) -> Figure | None:
    """Each trial's value by number, and the best so far."""
    valued = sorted((t for t in search.trials if t.values), key=lambda t: t.number)
    if not valued:
        return None
    name = search.objectives.names[objective]
    traces = [
        points_of([t for t in valued if t.state == state], objective, state, lambda t: t.number, search)
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


def timeline(search: SearchRecord) -> Figure | None:
    """When each trial ran, in as many rows as trials ran at a time. A running trial extends to the last known moment;
    one that still waits is left out."""
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


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat(timespec="seconds")
