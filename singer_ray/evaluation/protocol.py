"""The frozen-feature protocol: every probe, fitted on the features of one split and scored on others.

A probe is one class here; README.md says how to add one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch

from singer_ray.evaluation.features import Annotations, ProbeFeatures
from singer_ray.evaluation.patch_targets import IGNORE
from singer_ray.evaluation.probes import choose_l2, fit_classifier, fit_regression, knn_predict
from singer_ray.evaluation.scores import delta1, mean_iou, rmse, top1
from singer_ray.metrics import DEPTH_DELTA1, DEPTH_RMSE, KNN_TOP1, LINEAR_TOP1, MAX, MIOU, Metric

if TYPE_CHECKING:
    from singer_ray.config import EvaluationConfig

FIT = "train"
"""The split that probes are fitted on."""
SELECT = "val"
"""The split that regularisers are chosen on."""
_IMAGE_CHUNK = 4096

Predict = Callable[[ProbeFeatures], torch.Tensor]
"""A fitted probe: the features of a split -> a prediction for each image, or for each patch of each."""


@dataclass
class Probed:
    """The scores of all probes on one network's features."""

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


class Probe(ABC):
    """Something simple that is fitted on frozen features and scored on those of other images."""

    metrics: ClassVar[tuple[Metric, ...]]
    """What `score` gives; the regulariser is chosen by the first."""
    regularised: ClassVar[bool] = True
    """Whether `fit` heeds its `l2`."""

    def __init__(self, classes: int, mask_classes: int, settings: EvaluationConfig) -> None:
        self.classes, self.mask_classes, self.settings = classes, mask_classes, settings

    @abstractmethod
    def target(self, known: Annotations) -> torch.Tensor | None:
        """What is predicted, [images] or [images, patches]; None where the images are not annotated with it."""

    @abstractmethod
    def fit(self, features: ProbeFeatures, target: torch.Tensor, l2: float) -> Predict:
        """The probe that has learnt `target` of the fit images."""

    @abstractmethod
    def score(self, guess: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
        """A prediction for a whole split, scored: name of a metric -> value."""

    def why_not_fitted(self, target: torch.Tensor) -> str | None:
        """Why there is nothing to learn from this target of the fit images; None where there is."""
        return None

    def why_not_scored(self, target: torch.Tensor, split: str) -> str | None:
        """Why a split with this target cannot be scored; None where it can."""
        return None


class LinearClassification(Probe):
    """Logistic regression on the pooled features."""

    metrics = (LINEAR_TOP1,)

    def target(self, known: Annotations) -> torch.Tensor | None:
        return known.labels

    def why_not_fitted(self, target: torch.Tensor) -> str | None:
        one = target.unique().numel() < 2
        return "all training images that the probes are fitted on are of one class" if one else None

    def fit(self, features: ProbeFeatures, target: torch.Tensor, l2: float) -> Predict:
        probe = fit_classifier(features.pooled, target, self.classes, l2)
        return lambda seen: probe(seen.pooled).argmax(dim=1)

    def score(self, guess: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
        return {LINEAR_TOP1.name: top1(guess, target, self.classes)}


class NearestNeighbours(LinearClassification):
    """Votes of the fit images whose pooled features are nearest."""

    metrics = (KNN_TOP1,)
    regularised = False

    def fit(self, features: ProbeFeatures, target: torch.Tensor, l2: float) -> Predict:
        knn = self.settings.knn
        return lambda seen: knn_predict(features.pooled, target, seen.pooled, self.classes, knn.k, knn.temperature)

    def score(self, guess: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
        return {KNN_TOP1.name: top1(guess, target, self.classes)}


class PatchSegmentation(Probe):
    """Logistic regression from patches to their classes."""

    metrics = (MIOU,)

    def target(self, known: Annotations) -> torch.Tensor | None:
        return known.patch_classes

    def why_not_fitted(self, target: torch.Tensor) -> str | None:
        if target[target != IGNORE].unique().numel() >= 2:
            return None
        return "the patches of the training images that the probes are fitted on are of one class, or of none"

    def why_not_scored(self, target: torch.Tensor, split: str) -> str | None:
        return None if (target != IGNORE).any() else f"no patch of the {split} images is of a known class"

    def fit(self, features: ProbeFeatures, target: torch.Tensor, l2: float) -> Predict:
        patches, labelled = features.patches, target != IGNORE
        x, y = (patches.flatten(0, 1), target.flatten()) if labelled.all() else (patches[labelled], target[labelled])
        probe = fit_classifier(x, y, self.mask_classes, l2)
        return lambda seen: torch.cat([probe(p).argmax(dim=2) for p in seen.patches.split(_IMAGE_CHUNK)])

    def score(self, guess: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
        return {MIOU.name: mean_iou(guess, target, self.mask_classes)}


class PatchDepth(Probe):
    """Ridge regression from patches to their mean depth."""

    metrics = (DEPTH_RMSE, DEPTH_DELTA1)

    def target(self, known: Annotations) -> torch.Tensor | None:
        return known.patch_depth

    def fit(self, features: ProbeFeatures, target: torch.Tensor, l2: float) -> Predict:
        probe = fit_regression(features.patches.flatten(0, 1), target.flatten(), l2)
        return lambda seen: torch.cat([probe(p)[..., 0] for p in seen.patches.split(_IMAGE_CHUNK)])

    def score(self, guess: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
        scores = {DEPTH_RMSE.name: rmse(guess, target)}
        if (target > 0).any():
            scores[DEPTH_DELTA1.name] = delta1(guess, target)
        return scores


PROBES: tuple[type[Probe], ...] = (LinearClassification, NearestNeighbours, PatchSegmentation, PatchDepth)
"""All probes, in the order in which they are fitted and their scores are listed."""


@dataclass(frozen=True)
class Protocol:
    """All of PROBES on the same features.

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
        probed = Probed()
        for kind in PROBES:
            self._add(kind(self.classes, self.mask_classes, self.settings), features, known, splits, probed)
        return probed

    def _add(
        self,
        probe: Probe,
        features: Mapping[str, ProbeFeatures],
        known: Mapping[str, Annotations],
        splits: Sequence[str],
        probed: Probed,
    ) -> None:
        target = probe.target(known[FIT])
        if target is None:
            return
        if why := probe.why_not_fitted(target):
            probed.missing |= {metric.name: why for metric in probe.metrics}
            return
        annotated = {split: t for split in splits if (t := probe.target(known[split])) is not None}
        refused = {split: why for split, t in annotated.items() if (why := probe.why_not_scored(t, split))}
        truth = {split: t for split, t in annotated.items() if split not in refused}
        predict = self._fitted(probe, features, target, truth.get(SELECT), probed)
        for split in annotated:
            if split in refused:
                probed.missing |= {f"{split}/{metric.name}": refused[split] for metric in probe.metrics}
                continue
            for name, score in probe.score(predict(features[split]), truth[split]).items():
                probed.add(split, name, score)

    def _fitted(
        self,
        probe: Probe,
        features: Mapping[str, ProbeFeatures],
        target: torch.Tensor,
        selection: torch.Tensor | None,
        probed: Probed,
    ) -> Predict:
        """The probe with the regulariser that is best on `selection`, what is known of SELECT."""
        metric = probe.metrics[0]

        def fit(l2: float) -> Predict:
            return probe.fit(features[FIT], target, l2)

        def goodness(predict: Predict) -> float:
            assert selection is not None
            score = probe.score(predict(features[SELECT]), selection)[metric.name]
            return score if metric.better == MAX else -score

        if not probe.regularised:
            return fit(0.0)
        if self.l2_grid and selection is not None:
            predict, probed.l2[metric.name] = choose_l2(fit, goodness, self.l2_grid)
            return predict
        probed.l2[metric.name] = self.settings.l2
        return fit(self.settings.l2)
