"""Pictures of features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

matplotlib.use("Agg")  # no display is needed, wherever this runs

import torch
from matplotlib import pyplot
from matplotlib.colors import LogNorm

from singer_ray.data.source import Source, shuffled_subset
from singer_ray.data.views import EvaluationView
from singer_ray.method.artifacts import patch_norms
from singer_ray.vision.models import Normalization
from singer_ray.vision.tapped import TappedViT, evaluating

if TYPE_CHECKING:
    from singer_ray.method.distiller import Distiller

IMAGES = 5
_CANDIDATES = 64


def draw_norm_maps(
    path: Path,
    teacher: TappedViT,
    distiller: Distiller,
    normalize: Normalization,
    source: Source,
    view: EvaluationView,
    device: torch.device,
) -> None:
    """Patch norms over the image's median, at the last distilled layer: teacher, refined teacher, student.

    Shows the images of `source` (among 64) with the largest artifacts. All maps share one logarithmic scale.
    """
    sample = shuffled_subset(source, _CANDIDATES)
    images = torch.stack([view.image(sample[i]["image"]) for i in range(len(sample))])
    pixels = normalize(images.to(device))
    layer, student_layer = distiller.layers[-1], distiller.student_layers[-1]
    with evaluating(distiller):
        tokens = teacher(pixels).tokens[layer]
        shown, student = distiller.shown(layer, tokens), distiller.student(pixels).tokens[student_layer]
    maps = {
        f"teacher\nblock {layer}": _map(tokens[:, teacher.prefix :], distiller.teacher_grid),
        "shown to\nthe student": _map(shown[:, teacher.prefix :], distiller.teacher_grid),
        f"student\nblock {student_layer}": _map(student[:, distiller.student.prefix :], distiller.student_grid),
    }
    worst = next(iter(maps.values())).flatten(1).amax(dim=1).argsort(descending=True)[:IMAGES].tolist()
    scale = LogNorm(0.5, max(4.0, float(next(iter(maps.values()))[worst].max())))
    figure, axes = pyplot.subplots(
        len(maps) + 1, len(worst), figsize=(1.5 * len(worst) + 1.6, 1.5 * (len(maps) + 1)), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for column, image in enumerate(worst):
        axes[0, column].imshow(images[image].permute(1, 2, 0).numpy())
        for row, plane in enumerate(maps.values(), start=1):
            drawn = axes[row, column].imshow(plane[image].cpu().numpy(), norm=scale, cmap="magma")
    for row, name in enumerate(("image", *maps)):
        axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    bar = figure.colorbar(drawn, ax=axes[1:, :], shrink=0.8, ticks=[0.5, 1, 2, 4, 8, 16, 32, 64])
    bar.ax.set_yticklabels([f"{tick:g}" for tick in bar.get_ticks()])
    bar.ax.minorticks_off()
    bar.set_label("patch norm / median of the image")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _map(patches: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Norms over the image's median: [images, patches, dim] -> [images, rows, columns]."""
    norms = patch_norms(patches)
    relative: torch.Tensor = norms / norms.median(dim=1, keepdim=True).values.clamp_min(1e-12)
    return relative.reshape(-1, *grid)
