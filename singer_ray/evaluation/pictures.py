"""Pictures of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display is needed, wherever this runs

import numpy as np
import torch
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D

from singer_ray.data.source import Source, shuffled_subset
from singer_ray.data.views import EvaluationView
from singer_ray.method.artifacts import max_median_ratio, patch_norms, relative_norms

DPI = 110
IMAGES = 5
CANDIDATES = 64
COLOURS = ("#b2182b", "#2166ac", "#1b7837", "#762a83", "#e08214")


@dataclass(frozen=True)
class TokenSet:
    """Patch tokens of some images under the name that a picture gives them."""

    name: str
    patches: torch.Tensor
    """[images, patches, dim]"""
    grid: tuple[int, int]
    """Rows and columns of the patches."""


class PrincipalColours:
    """The first three principal components of `fit_on` [tokens, dim], as red, green and blue.

    Each runs from the 5th to the 95th percentile of those tokens; what lies outside is clipped.
    """

    def __init__(self, fit_on: torch.Tensor) -> None:
        fit = fit_on.double().cpu()
        self.centre = fit.mean(dim=0)
        axes = torch.linalg.eigh((fit - self.centre).mT.cov()).eigenvectors.flip(1)[:, :3]
        # Eigenvectors have no sign of their own: the largest entry is made positive.
        self.axes = axes * axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()
        ordered = ((fit - self.centre) @ self.axes).sort(dim=0).values
        self.low, self.high = (ordered[round(share * (len(ordered) - 1))] for share in (0.05, 0.95))

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """[..., dim] -> float64 [..., 3] in 0..1"""
        components = (tokens.double().cpu() - self.centre) @ self.axes
        colours: torch.Tensor = (components - self.low) / (self.high - self.low).clamp_min(1e-12)
        return colours.clamp(0, 1)


def sample_images(source: Source, view: EvaluationView, count: int = CANDIDATES) -> torch.Tensor:
    """Some images of `source`, as the networks are shown them: uint8 [images, 3, size, size]."""
    sample = shuffled_subset(source, count)
    return torch.stack([view.image(sample[i]["image"]) for i in range(len(sample))])


def most_affected(patches: torch.Tensor, count: int = IMAGES) -> list[int]:
    """The images with the largest patch norm over their median, largest first: [images, patches, dim] -> indices."""
    worst: list[int] = max_median_ratio(patch_norms(patches)).argsort(descending=True)[:count].tolist()
    return worst


def draw_norms(path: Path, images: torch.Tensor, sets: Sequence[TokenSet]) -> None:
    """A row of norm maps for each token set, on one logarithmic scale: patch norm over the median of the image.

    Shows the images in which the first set has the largest artifacts.
    """
    worst = most_affected(sets[0].patches)
    maps = {tokens.name: _relative_norms(tokens) for tokens in sets}
    scale = LogNorm(0.5, max(4.0, float(next(iter(maps.values()))[worst].max())))
    figure, axes = _picture_rows(images[worst], list(maps))
    for row, plane in enumerate(maps.values(), start=1):
        for column, image in enumerate(worst):
            drawn = axes[row, column].imshow(plane[image].cpu().numpy(), norm=scale, cmap="magma")
    bar = figure.colorbar(drawn, ax=axes[1:, :], shrink=0.8, ticks=[0.5, 1, 2, 4, 8, 16, 32, 64])
    bar.ax.set_yticklabels([f"{tick:g}" for tick in bar.get_ticks()])
    bar.ax.minorticks_off()
    bar.set_label("patch norm / median of the image")
    _save(figure, path)


def draw_pca(path: Path, images: torch.Tensor, sets: Sequence[TokenSet], fit_on: torch.Tensor) -> None:
    """Patch features as colours (`PrincipalColours`), with one projection and one colour scale for all sets.

    So equal colours mean equal features; every set must be in the same space (a student's in the teacher's, by its own
    P_l). `fit_on` [tokens, dim] should be tokens without artifacts, which would otherwise take the axes. Shows the
    images in which the first set has the largest artifacts.
    """
    worst = most_affected(sets[0].patches)
    colours = PrincipalColours(fit_on)
    figure, axes = _picture_rows(images[worst], [tokens.name for tokens in sets])
    for row, tokens in enumerate(sets, start=1):
        for column, plane in enumerate(colours(tokens.patches[worst])):
            axes[row, column].imshow(plane.reshape(*tokens.grid, 3).numpy())
    figure.suptitle("Red, green, blue: first three principal components of the teacher's normal tokens", fontsize=10)
    _save(figure, path)


def draw_norm_histograms(path: Path, panels: Mapping[str, Mapping[str, torch.Tensor]], k: float) -> None:
    """A histogram of patch norms over the median of their image for each panel, on logarithmic axes.

    `panels` maps a panel's title to named norms, [images, patches] over the image's median; `k` is marked.
    """
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(
        rows,
        columns,
        figsize=(3.2 * columns, 2.4 * rows + 0.4),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    largest = max(float(norms.max()) for series in panels.values() for norms in series.values())
    smallest = min(float(norms.min()) for series in panels.values() for norms in series.values())
    edges = np.geomspace(min(0.5, max(0.9 * smallest, 1 / 32)), max(1.5 * k, 1.1 * largest), 60)
    for axis, (title, series) in zip(axes.flat, panels.items()):
        for name, norms in series.items():
            inside = norms.flatten().cpu().numpy().clip(edges[0], edges[-1])
            colour = COLOURS[names.index(name) % len(COLOURS)]
            weights = np.full(len(inside), 1 / len(inside))
            axis.hist(inside, edges, weights=weights, histtype="stepfilled", color=colour, alpha=0.25)
            axis.hist(inside, edges, weights=weights, histtype="step", color=colour, label=name)
        axis.axvline(k, color="black", linestyle=":", linewidth=1)
        axis.set(xscale="log", yscale="log", ylim=(5e-6, 1))
        axis.set_title(title, fontsize=10)
    ticks = [2.0**power for power in range(-4, 12, 1 if edges[-1] < 32 else 2) if edges[0] <= 2.0**power <= edges[-1]]
    axes[0, 0].set_xticks(ticks, [f"{tick:g}" if tick >= 1 else f"1/{1 / tick:g}" for tick in ticks])
    axes[0, 0].minorticks_off()
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    handles = [
        *(Line2D([], [], color=COLOURS[i % len(COLOURS)], label=name) for i, name in enumerate(names)),
        Line2D([], [], color="black", linestyle=":", label=f"{k:g} x the median: outlier"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize=9, frameon=False)
    figure.supxlabel("patch norm / median of the image", fontsize=10)
    figure.supylabel("share of tokens", fontsize=10)
    _save(figure, path)


def _picture_rows(images: torch.Tensor, names: Sequence[str]) -> tuple[Any, Any]:
    """A figure whose first row shows `images`, with a named empty row below for each of `names`."""
    figure, axes = pyplot.subplots(
        len(names) + 1,
        len(images),
        figsize=(1.5 * len(images) + 1.6, 1.5 * (len(names) + 1)),
        squeeze=False,
        layout="constrained",
    )
    for column, image in enumerate(images):
        axes[0, column].imshow(image.permute(1, 2, 0).numpy())
    for row, name in enumerate(("image", *names)):
        axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.xaxis.set_visible(False)  # the layout measures whatever is visible, also what is empty
    for axis in axes[:, 1:].flat:
        axis.yaxis.set_visible(False)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    figure.set_dpi(DPI)
    FigureCanvasAgg(figure).print_png(path)  # savefig lays out and draws everything twice, which takes twice as long
    pyplot.close(figure)


def _relative_norms(tokens: TokenSet) -> torch.Tensor:
    """Norms over the image's median: [images, rows, columns]."""
    return relative_norms(patch_norms(tokens.patches)).reshape(-1, *tokens.grid)
