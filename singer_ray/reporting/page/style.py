"""What all figures share: colours that read on a light and on a dark page, and a size that is bounded.

Text, grid and background are the page's: report.js sets them when it draws, and again when the page turns dark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

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
