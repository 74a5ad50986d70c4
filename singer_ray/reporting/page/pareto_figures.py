"""Figures of objectives against one another; None where there is nothing to draw."""

from __future__ import annotations

from itertools import combinations

from plotly import graph_objects

from singer_ray.reporting.page.style import COLOURS, LEAD, Figure, figure, rounded
from singer_ray.reporting.reading.record import SearchRecord
from singer_ray.search.study.schema import COMPLETE, PRUNED


def pareto(search: SearchRecord, one: int, other: int) -> Figure | None:
    """Two objectives against one another. The front over all objectives is marked; with only two it is a line."""
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
    figures = [pareto(search, one, other) for one, other in combinations(range(len(search.objectives.names)), 2)]
    return [each for each in figures if each is not None]


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


def _directed(search: SearchRecord, objective: int) -> str:
    better = "higher" if search.objectives.modes[objective] == "max" else "lower"
    return f"{search.objectives.names[objective]} ({better} is better)"


def _corner(search: SearchRecord, one: int, other: int) -> str:
    """The step line that bounds what the front dominates."""
    return "hv" if search.objectives.modes[one] == "min" else "vh"
