"""Figures of an analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from matplotlib import pyplot
from matplotlib.figure import SubFigure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from singer_ray.analysis.artifacts import LayerReport
from singer_ray.analysis.gradient_bias import GradientBias
from singer_ray.evaluation.pictures import COLOURS, DPI

MAPS = 4


def draw_layers(path: Path, reports: Mapping[int, LayerReport], layers: Sequence[int]) -> None:
    """Over the depth of the teacher: how large artifacts are, what they hold, their directions; where on the grid.

    The maps show the distilled `layers` and others with outliers, up to four, on one scale; above each stands how much
    artifacts keep to places (`Nature.recurrence`).
    """
    mapped = _mapped(reports, layers)
    figure = pyplot.figure(figsize=(9.8, 6.0), layout="constrained")
    above, below = cast("Sequence[SubFigure]", figure.subfigures(2, 1, height_ratios=[1, 1.15]))
    left, right, third = above.subplots(1, 3)
    depth = list(reports)
    left.plot(depth, [r.max_median for r in reports.values()], "o-", color=COLOURS[0], markersize=4)
    left.set(xlabel="teacher block", ylabel="max / median norm", title="Largest patch norm")
    left.set_ylim(0, 1.08 * max(r.max_median for r in reports.values()))
    right.plot(depth, [r.energy_share for r in reports.values()], "o-", color=COLOURS[0], label="energy", markersize=4)
    right.plot(depth, [r.token_share for r in reports.values()], "s--", color=COLOURS[1], label="tokens", markersize=4)
    right.set(xlabel="teacher block", ylabel="share", ylim=(-0.02, 1), title="What is in outlier tokens")
    right.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.legend(frameon=False)
    number = [r.nature.number for r in reports.values()]
    third.plot(depth, number, "o-", color=COLOURS[0], markersize=4)
    third.set(
        xlabel="teacher block", ylabel="number", title="Directions of artifacts", ylim=(-0.2, 1.08 * max(*number, 4))
    )
    third.yaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in (left, right, third):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        for layer in layers:
            axis.axvline(layer, color="grey", linestyle=":", linewidth=1)
    title = (
        "How often a place of the patch grid holds an outlier (blocks dotted above are distilled;\n"
        "in brackets: how much they keep to places, from 0, by chance, to 1, always the same)"
    )
    below.suptitle(title, fontsize=11)
    maps = np.atleast_1d(below.subplots(1, len(mapped), sharey=True))
    largest = max(0.01, *(float(reports[n].frequency.max()) for n in mapped))
    for axis, layer in zip(maps, mapped):
        drawn = axis.imshow(reports[layer].frequency.numpy(), cmap="magma", vmin=0, vmax=largest)
        again = reports[layer].nature.recurrence
        axis.set(title=f"block {layer}" + ("" if again is None else f" ({again:.2f})"), xlabel="column of patches")
        for place in (axis.xaxis, axis.yaxis):
            place.set_major_locator(MaxNLocator(4, integer=True))
    maps[0].set_ylabel("row of patches")
    below.colorbar(drawn, ax=maps, shrink=0.9, format=PercentFormatter(1), label="share of images")
    figure.savefig(path, dpi=DPI)
    pyplot.close(figure)


def draw_gradient_share(
    path: Path, track: Sequence[tuple[int, Mapping[str, GradientBias]]], token_share: float, fair: float
) -> None:
    """Shares of the loss and of its gradient that outlier tokens make, over training, a line for each refiner.

    The gradient share tends to 1/2 where training comes to rest (see `GradientBias`): its left end is what to compare.
    `token_share` is their number, `fair` the gradient share that it explains at most (`fair_gradient_share`).
    """
    steps = [step for step, _ in track]
    figure, axes = pyplot.subplots(1, 2, figsize=(9.8, 3.6), sharey=True, layout="constrained")
    for index, name in enumerate(track[0][1]):
        label = "no refiner" if name == "none" else f"refiner {name}"
        style = {"color": COLOURS[index % len(COLOURS)], "label": label, "marker": "o", "markersize": 4}
        axes[0].plot(steps, [biases[name].loss_share for _, biases in track], **style)
        axes[1].plot(steps, [biases[name].gradient_share for _, biases in track], **style)
    axes[0].axhline(token_share, color="black", linestyle=":", linewidth=1, label="their share of the tokens")
    axes[1].axhline(0.5, color="grey", linestyle="--", linewidth=1, label="where both parts cancel")
    axes[1].axhline(fair, color="black", linestyle=":", linewidth=1, label="most that their number explains")
    for axis, what in zip(axes, ("the KD loss", "the gradient of the KD loss")):
        axis.set(xlabel="training step", title=f"Outliers' share of {what}", ylim=(-0.02, 1.02))
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=9)
    axes[0].set_ylabel("share")
    figure.savefig(path, dpi=DPI)
    pyplot.close(figure)


def _mapped(reports: Mapping[int, LayerReport], layers: Sequence[int]) -> list[int]:
    """The distilled layers, then others with outliers from the deepest up, at most `MAPS` in all; in order."""
    others = [n for n in sorted(reports, reverse=True) if n not in layers and reports[n].outliers.any()]
    return sorted([*list(layers)[-MAPS:], *others][:MAPS])
