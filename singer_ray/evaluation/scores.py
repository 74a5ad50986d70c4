"""Scores of predictions over a whole set: never the mean of scores of its batches.

TorchMetrics takes a second or two to import (it loads SciPy's signal processing and Matplotlib), which what scores
nothing, such as a dry run or a refusal, should not wait for.
"""

from __future__ import annotations

import torch

from singer_ray.evaluation.patch_targets import IGNORE

DELTA = 1.25
"""A depth is right when it is off by less than this factor."""


def top1(guess: torch.Tensor, labels: torch.Tensor, classes: int) -> float:
    """Share of images with the right class: [images] twice -> 0..1."""
    from torchmetrics.functional.classification import multiclass_accuracy

    return float(multiclass_accuracy(guess, labels, num_classes=classes, average="micro"))


def mean_iou(guess: torch.Tensor, target: torch.Tensor, classes: int) -> float:
    """Mean over classes of the intersection over union, 0..1; both counted over the whole set.

    `target` may hold IGNORE; those places are not counted. A class that is neither in `target` nor in `guess` is left
    out of the mean; one that is guessed and never right counts as 0.
    """
    from torchmetrics.functional.classification import multiclass_jaccard_index

    return float(multiclass_jaccard_index(guess, target, classes, ignore_index=IGNORE))


def rmse(guess: torch.Tensor, target: torch.Tensor) -> float:
    """Root of the mean squared error over all places, in the unit of `target`."""
    from torchmetrics.functional import mean_squared_error

    return float(mean_squared_error(guess.flatten(), target.flatten(), squared=False))


def delta1(guess: torch.Tensor, target: torch.Tensor) -> float:
    """Share of places with max(guess / target, target / guess) < 1.25; places without a positive target are left out.

    A guess of 0 or less is wrong. NaN where no target is positive.
    """
    known = target > 0
    guess, target = guess[known], target[known]
    right = (guess < DELTA * target) & (target < DELTA * guess)
    return float(right.float().mean())


def artifact_share(norms: torch.Tensor, ratio: float) -> float:
    """Share of patches whose norm is above `ratio` x the median of their image: [images, patches] -> 0..1."""
    return float((norms > ratio * norms.median(dim=1, keepdim=True).values).float().mean())
