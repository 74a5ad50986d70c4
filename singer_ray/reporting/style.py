"""What all figures share: colours that read on a light and on a dark page, axes, and a size that is bounded.

Text, grid and background are the page's: report.js sets them when it draws, and again when the page turns dark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from plotly import graph_objects

from singer_ray.search.study.schema import COMPLETE, FAIL, PRUNED, QUEUED, RUNNING

COLOURS = {COMPLETE: "#3f7fd9", PRUNED: "#98a2ae", RUNNING: "#23a18b", QUEUED: "#c9b458", FAIL: "#d64f4f"}
WORDS = {COMPLETE: "finished", PRUNED: "stopped early", RUNNING: "running", QUEUED: "queued", FAIL: "failed"}
LEAD = "#ef8a17"
"""The best trial, and the Pareto front."""
SCALE = [[0.0, "#7a5bb5"], [0.25, "#4474c4"], [0.5, "#2a948d"], [0.75, "#7cbf4b"], [1.0, "#f2c230"]]
"""Values from worst to best, where the colour tells them."""
CURVE_POINTS = 60
"""A learning curve is drawn with no more points than these."""

Figure: TypeAlias = graph_objects.Figure


def figure(traces: Sequence[Any], *, height: int = 380, legend: bool = True, **layout: Any) -> Figure:
    """A figure without plotly's own template."""
    made = graph_objects.Figure(traces)
    made.update_layout(
        template={},
        height=height,
        showlegend=legend,
        hovermode="closest",
        margin={"l": 64, "r": 18, "t": 34, "b": 46},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        **layout,
    )
    return made


def rounded(values: Sequence[Any], digits: int = 5) -> list[Any]:
    """Floats to significant digits: what a picture shows, at a fraction of the size."""
    return [float(f"{v:.{digits}g}") if isinstance(v, float) and math.isfinite(v) else v for v in values]


def thinned(curve: Mapping[int, float]) -> list[tuple[int, float]]:
    """Points of a curve, the first and the last among them, at most CURVE_POINTS."""
    points = sorted(curve.items())
    if len(points) <= CURVE_POINTS:
        return points
    places = sorted({round(n * (len(points) - 1) / (CURVE_POINTS - 1)) for n in range(CURVE_POINTS)})
    return [points[n] for n in places]


class Axis:
    """A parameter as an axis: numbers, logarithmic where the search drew them so, or its choices side by side."""

    def __init__(self, name: str, distribution: BaseDistribution) -> None:
        self.name = name
        self.choices: list[Any] | None = None
        self.log = False
        if isinstance(distribution, CategoricalDistribution):
            self.choices = list(distribution.choices)
            self.low, self.high = 0.0, float(len(self.choices) - 1)
        else:
            assert isinstance(distribution, (FloatDistribution, IntDistribution))
            self.log = distribution.log
            self.low, self.high = float(distribution.low), float(distribution.high)

    def place(self, value: Any) -> float:
        """Where a value lies: itself, or the place of a choice."""
        return float(self.choices.index(value)) if self.choices is not None else float(value)

    def share(self, value: Any) -> float:
        """Where a value lies between the ends of the range, 0..1, in the measure in which it was drawn."""
        low, high, at = (self._scaled(v) for v in (self.low, self.high, self.place(value)))
        return (at - low) / (high - low) if high > low else 0.5

    def value_at(self, share: float) -> float:
        """The number at a share of the range; beyond 0..1 outside of it."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        at = low + share * (high - low)
        return math.exp(at) if self.log else at

    def layout(self) -> dict[str, Any]:
        """As an axis of plotly."""
        title = {"text": self.name}
        if self.choices is not None:
            ticks = list(range(len(self.choices)))
            return {
                "title": title,
                "tickvals": ticks,
                "ticktext": [str(c) for c in self.choices],
                "range": [-0.5, len(ticks) - 0.5],
                "zeroline": False,
            }
        pad = 0.04
        ends = (
            [self.value_at(-pad), self.value_at(1 + pad)] if self.high > self.low else [self.low * 0.9, self.high * 1.1]
        )
        if self.log:
            ticks_ = log_ticks(self.low, self.high)
            return {
                "title": title,
                "type": "log",
                "range": [math.log10(e) for e in ends],
                "tickvals": ticks_,
                "ticktext": [f"{t:g}" for t in ticks_],
            }
        if ends[0] == ends[1]:
            ends = [ends[0] - 1, ends[1] + 1]
        return {"title": title, "range": ends, "nticks": 6, "zeroline": False}

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.log else value


def log_ticks(low: float, high: float) -> list[float]:
    """The ends of a logarithmic axis, and round numbers between them that leave room for one another."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    apart = (high / low) ** 0.13
    for digits in ((1, 2, 5), (1, 3), (1,)):
        round_ = [d * 10.0**p for p in range(first, last + 1) for d in digits]
        found = [t for t in round_ if low * apart < t < high / apart]
        if len(found) <= 4:
            break
    return [low, *found[:: max(1, len(found) // 4)], high] if high > low else [low]
