"""The frozen-feature protocol: every probe, fitted on the features of one split and scored on others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from singer_ray.evaluation.features import Annotations, ProbeFeatures
from singer_ray.evaluation.patch_targets import IGNORE
from singer_ray.evaluation.probes import LinearProbe, choose_l2, fit_classifier, fit_regression, knn_predict
from singer_ray.evaluation.scores import delta1, mean_iou, rmse, top1

if TYPE_CHECKING:
    from singer_ray.config import EvaluationConfig

FIT = "train"
"""The split that probes are fitted on."""
SELECT = "val"
"""The split that regularisers are chosen on."""
_IMAGE_CHUNK = 4096


@dataclass
class Probed:
    """What the probes found."""

    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    """Split -> name -> score."""
    l2: dict[str, float] = field(default_factory=dict)
    """Name of the score -> regulariser that its probe was fitted with."""
    missing: dict[str, str] = field(default_factory=dict)
    """Score, or SPLIT/score, that could not be measured -> why."""

    @property
    def notes(self) -> list[str]:
        """The same as lines."""
        return [f"not measured: {name}, because {why}" for name, why in self.missing.items()]

    def add(self, split: str, name: str, score: float) -> None:
        self.scores.setdefault(split, {})[name] = score


@dataclass(frozen=True)
class Protocol:
    """Linear probe, nearest neighbours, patch segmentation and patch depth.

    Regularisers come from `l2_grid` by the validation score (top-1, mIoU, RMSE) of each probe; with an empty grid, or
    without validation images, all are `settings.l2`.
    """

    classes: int
    mask_classes: int
    settings: EvaluationConfig
    l2_grid: Sequence[float] = ()

    def run(
        self, features: Mapping[str, ProbeFeatures], known: Mapping[str, Annotations], splits: Sequence[str]
    ) -> Probed:
        """Fits on FIT and scores `splits`; an annotation that FIT or a split lacks gives no scores there."""
        found = Probed()
        self._classify(features, known, splits, found)
        self._segment(features, known, splits, found)
        self._estimate_depth(features, known, splits, found)
        return found

    def _classify(
        self,
        features: Mapping[str, ProbeFeatures],
        known: Mapping[str, Annotations],
        splits: Sequence[str],
        found: Probed,
    ) -> None:
        memory, labels = features[FIT].pooled, known[FIT].labels
        if labels is None:
            return
        if labels.unique().numel() < 2:
            why = "all training images that the probes are fitted on are of one class"
            found.missing |= {"linear_top1": why, "knn_top1": why}
            return
        truth = {split: known[split].labels for split in splits}

        def score(probe: LinearProbe, split: str) -> float:
            target = truth[split]
            assert target is not None
            return top1(probe(features[split].pooled).argmax(dim=1), target, self.classes)

        probe = self._fitted(
            "linear_top1", lambda l2: fit_classifier(memory, labels, self.classes, l2), score, truth, found
        )
        knn = self.settings.knn
        for split, target in truth.items():
            if target is None:
                continue
            nearest = knn_predict(memory, labels, features[split].pooled, self.classes, knn.k, knn.temperature)
            found.add(split, "linear_top1", score(probe, split))
            found.add(split, "knn_top1", top1(nearest, target, self.classes))

    def _segment(
        self,
        features: Mapping[str, ProbeFeatures],
        known: Mapping[str, Annotations],
        splits: Sequence[str],
        found: Probed,
    ) -> None:
        target = known[FIT].patch_classes
        if target is None:
            return
        labelled = target != IGNORE
        if target[labelled].unique().numel() < 2:
            found.missing["miou"] = (
                "the patches of the training images that the probes are fitted on are of one class, or of none"
            )
            return
        patches = features[FIT].patches
        x, y = (patches.flatten(0, 1), target.flatten()) if labelled.all() else (patches[labelled], target[labelled])
        masks = {split: known[split].patch_classes for split in splits}
        truth = {split: m if m is not None and (m != IGNORE).any() else None for split, m in masks.items()}

        def score(probe: LinearProbe, split: str) -> float:
            target = truth[split]
            assert target is not None
            guess = torch.cat([probe(p).argmax(dim=2) for p in features[split].patches.split(_IMAGE_CHUNK)])
            return mean_iou(guess, target, self.mask_classes)

        probe = self._fitted("miou", lambda l2: fit_classifier(x, y, self.mask_classes, l2), score, truth, found)
        for split, mask in truth.items():
            if mask is not None:
                found.add(split, "miou", score(probe, split))
            elif masks[split] is not None:
                found.missing[f"{split}/miou"] = f"no patch of the {split} images is of a known class"

    def _estimate_depth(
        self,
        features: Mapping[str, ProbeFeatures],
        known: Mapping[str, Annotations],
        splits: Sequence[str],
        found: Probed,
    ) -> None:
        target = known[FIT].patch_depth
        if target is None:
            return
        x, y = features[FIT].patches.flatten(0, 1), target.flatten()
        truth = {split: known[split].patch_depth for split in splits}

        def guess(probe: LinearProbe, split: str) -> torch.Tensor:
            return torch.cat([probe(p)[..., 0] for p in features[split].patches.split(_IMAGE_CHUNK)])

        def score(probe: LinearProbe, split: str) -> float:
            target = truth[split]
            assert target is not None
            return -rmse(guess(probe, split), target)

        probe = self._fitted("depth_rmse", lambda l2: fit_regression(x, y, l2), score, truth, found)
        for split, distance in truth.items():
            if distance is not None:
                found.add(split, "depth_rmse", -score(probe, split))
                if (distance > 0).any():
                    found.add(split, "depth_delta1", delta1(guess(probe, split), distance))

    def _fitted(
        self,
        name: str,
        fit: Callable[[float], LinearProbe],
        score: Callable[[LinearProbe, str], float],
        truth: Mapping[str, torch.Tensor | None],
        found: Probed,
    ) -> LinearProbe:
        if self.l2_grid and truth.get(SELECT) is not None:
            probe, found.l2[name] = choose_l2(fit, lambda probe: score(probe, SELECT), self.l2_grid)
            return probe
        found.l2[name] = self.settings.l2
        return fit(self.settings.l2)
