"""The names of metrics, what each is measured on, and which way is better.

Torch-free and below everything, so that curves, tables, searches and reports ask here instead of guessing from a name.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX, MIN = "max", "min"


@dataclass(frozen=True)
class Metric:
    """One kind of figure."""

    name: str
    """The part of a metric's full name that says what it is: `miou` of `val/after_norm/miou`."""
    better: str
    """MAX or MIN."""
    field: str = ""
    """The annotation that a probe's score needs: "label", "mask" or "depth". Empty for what needs none."""
    in_training: bool = True
    """Whether training measures it too, or only the evaluate command."""


LINEAR_TOP1 = Metric("linear_top1", MAX, "label")
KNN_TOP1 = Metric("knn_top1", MAX, "label")
MIOU = Metric("miou", MAX, "mask")
DEPTH_RMSE = Metric("depth_rmse", MIN, "depth")
DEPTH_DELTA1 = Metric("depth_delta1", MAX, "depth", in_training=False)
PROBED = (LINEAR_TOP1, KNN_TOP1, MIOU, DEPTH_RMSE, DEPTH_DELTA1)
"""Scores of the probes, in the order in which they are measured."""
_MOST_TELLING = ("mask", "label", "depth")
"""Annotations by how much a score on them says about a student; those that are not named here come last."""

OTHERS = (
    # of the official heads
    Metric("top1", MAX),
    Metric("top5", MAX),
    Metric("depth_rmse_per_image", MIN),
    Metric("depth_rel", MIN),
    # of features and their artifacts
    Metric("max_median_norm", MIN),
    Metric("artifact_share", MIN),
    Metric("gram_cosine", MAX),
    # of what a refiner changes
    *(Metric(f"{name}_change", MIN) for name in ("branch", "output", "gram", "normal")),
    # of the run
    Metric("parameters", MIN),
    Metric("loss", MIN),
    Metric("seconds", MIN),
    Metric("images_per_second", MAX),
)


def direction(name: str) -> str:
    """MAX or MIN of a metric by its full name (`val/after_norm/miou`, `student/max_median_norm/2`).

    MAX for a name that holds no known metric.
    """
    better = {metric.name: metric.better for metric in (*PROBED, *OTHERS)}
    return next((better[part] for part in name.split("/") if part in better), MAX)


def probed(field: str) -> list[str]:
    """The scores of the probes that training measures on images with that annotation."""
    return [metric.name for metric in PROBED if metric.field == field and metric.in_training]


def best_first() -> list[str]:
    """All scores of the probes that training measures, the most telling first."""
    return [name for field in _fields() for name in probed(field)]


def headline() -> list[str]:
    """The first score on each annotation: what a line about an epoch has room for."""
    return [name for field in _fields() for name in probed(field)[:1]]


def _fields() -> list[str]:
    return list(dict.fromkeys((*_MOST_TELLING, *(metric.field for metric in PROBED))))
