"""curves.png: losses, learning rate and validation scores of a run by epoch."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from singer_ray.metrics import MIN, direction
from singer_ray.storage import write_whole
from singer_ray.tracking.history import RATE, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#3f7fd9", "#ef8a17", "#23a18b", "#7a5bb5", "#d64f4f", "#98a2ae", "#8c6d31", "#1b2028")
TOTAL, SHARE = "train/loss", "student/artifact_share"
_DPI, _WIDTH, _HEIGHT = 110, 5.6, 3.9


@dataclass(frozen=True)
class Panel:
    """Curves that share their axes."""

    title: str
    curves: Mapping[str, Mapping[int, float]]
    """Name for the legend -> value by epoch."""
    log: bool = False


def panels(rows: Mapping[int, Row]) -> list[Panel]:
    """What a run's rows give to draw, as it is drawn here and in the report; panels without a curve are left out."""
    known = dict.fromkeys(name for row in rows.values() for name in row)
    names = sorted(known, key=lambda name: name != TOTAL)
    curves = {name: {n: row[name] for n, row in rows.items() if name in row} for name in names}
    losses = {name.partition("/")[2]: curves[name] for name in names if name.startswith("train/")}
    scores = {
        name.partition("/")[2]: curves[name] for name in names if name.startswith("val/") and name.count("/") == 1
    }
    down = {name: curve for name, curve in scores.items() if direction(name) == MIN}
    shares = {"artifact_share": curves[SHARE]} if any(curves.get(SHARE, {}).values()) else {}
    positive = all(value > 0 for curve in losses.values() for value in curve.values())
    made = [
        Panel("Losses", losses, log=positive),
        Panel("Learning rate", {RATE: curves[RATE]} if RATE in curves else {}),
        Panel("Validation scores (higher is better)", {n: c for n, c in scores.items() if n not in down}),
        Panel("Validation errors (lower is better)", down),
        Panel("Share of artifacts among the student's tokens", shares),
    ]
    return [panel for panel in made if panel.curves]


def draw_curves(rows: Mapping[int, Row], path: Path) -> None:
    """Writes the picture; nothing where there is nothing to draw. Raises OSError."""
    drawn = panels(rows)
    if not drawn:
        return
    # Matplotlib takes a second to import, which training should not wait for before its first picture.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(2, len(drawn))
    lines = -(-len(drawn) // columns)
    figure = Figure(figsize=(_WIDTH * columns, _HEIGHT * lines), dpi=_DPI, layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for panel, axis in zip(drawn, axes):
        _draw(panel, axis)
    for axis in axes[len(drawn) :]:
        axis.set_axis_off()
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)  # savefig lays out and draws everything twice
    write_whole(path, content.getvalue())


def _draw(panel: Panel, axis: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    for (name, curve), colour in zip(panel.curves.items(), COLOURS * len(panel.curves)):
        style: dict[str, Any] = {"color": colour, "linewidth": 2.4 if name == "loss" else 1.5}
        if len(curve) < 40:
            style |= {"marker": "o", "markersize": 3.5}
        axis.plot(list(curve), list(curve.values()), label=name, **style)
    if panel.log:
        axis.set_yscale("log")
    axis.set_title(panel.title, fontsize=11, loc="left")
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    if len(panel.curves) > 1:
        axis.legend(fontsize=8.5, frameon=False)
    else:
        axis.set_ylabel(next(iter(panel.curves)))
