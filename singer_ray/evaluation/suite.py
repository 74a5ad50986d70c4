"""The probes of a network, fitted on training images and scored on validation or test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torchmetrics.functional import mean_squared_error
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index

from singer_ray.data.source import Source
from singer_ray.data.views import EvaluationView
from singer_ray.evaluation.features import Annotations, Features, annotations_of, features_of
from singer_ray.evaluation.probes import fit_classifier, fit_regression, knn_predict
from singer_ray.vision.models import Normalization
from singer_ray.vision.tapped import TappedViT

if TYPE_CHECKING:
    from singer_ray.config import EvaluationConfig

FIT = "train"
_IMAGE_CHUNK = 4096


@dataclass(frozen=True)
class Reader:
    """A network as the probes see it."""

    network: TappedViT
    """Tapped at its last layer."""
    normalize: Normalization
    grid: tuple[int, int]
    """Rows and columns of its patches."""


class ProbeSuite:
    """Linear probe, nearest neighbours, patch segmentation and patch depth on frozen last-block features.

    `sources` maps "train" (what the probes are fitted on), "val" and "test" to sources; missing ones give no metrics,
    and so do annotations that a source does not have. Annotations are read once and kept.
    """

    def __init__(
        self, sources: Mapping[str, Source], view: EvaluationView, settings: EvaluationConfig, device: torch.device
    ) -> None:
        self.sources, self.view, self.settings, self.device = dict(sources), view, settings, device
        self._annotations: dict[tuple[str, tuple[int, int]], Annotations] = {}

    def splits(self) -> list[str]:
        """The splits that can be scored."""
        return [name for name in ("val", "test") if name in self.sources]

    def metric_names(self) -> list[str]:
        """What a validation score will hold, best first: what a search may optimise."""
        if FIT not in self.sources or "val" not in self.sources:
            return []
        shared = self.sources[FIT].fields & self.sources["val"].fields
        by_field = {"mask": ["val/miou"], "label": ["val/linear_top1", "val/knn_top1"], "depth": ["val/depth_rmse"]}
        return [name for field, names in by_field.items() if field in shared for name in names]

    def score(self, reader: Reader, splits: Sequence[str], *, after_norm: bool = False) -> dict[str, float]:
        """`SPLIT/linear_top1`, `knn_top1`, `miou` (over patches), all in 0..1, `depth_rmse` in the unit of the source.

        Features are the last block's output before the final norm; with `after_norm` also, as
        `SPLIT/after_norm/...`, what the exported model's `forward_features` gives.
        """
        wanted = [name for name in splits if name in self.sources]
        if FIT not in self.sources or not wanted:
            return {}
        features = {name: self._features(reader, name) for name in (FIT, *wanted)}
        metrics: dict[str, float] = {}
        for name, infix in (("before_norm", ""), ("after_norm", "after_norm/")):
            if name == "after_norm" and not after_norm:
                continue
            read = {split: found[name] for split, found in features.items()}
            for split, scores in self._probe(read, wanted, reader.grid).items():
                metrics |= {f"{split}/{infix}{key}": value for key, value in scores.items()}
        return metrics

    def _features(self, reader: Reader, split: str) -> dict[str, Features]:
        return features_of(
            reader.network, reader.normalize, self.sources[split], self.view, self.device,
            pooling=self.settings.pooling, batch_size=self.settings.batch_size,
        )  # fmt: skip

    def _known(self, split: str, grid: tuple[int, int]) -> Annotations:
        key = (split, grid)
        if key not in self._annotations:
            self._annotations[key] = annotations_of(self.sources[split], self.view, grid, self.device)
        return self._annotations[key]

    def _probe(
        self, features: dict[str, Features], splits: Sequence[str], grid: tuple[int, int]
    ) -> dict[str, dict[str, float]]:
        scores: dict[str, dict[str, float]] = {split: {} for split in splits}
        fit, known = features[FIT], self._known(FIT, grid)
        settings = self.settings
        if known.labels is not None:
            classes = len(self.sources[FIT].classes)
            linear = fit_classifier(fit.pooled, known.labels, classes, settings.l2)
            for split in splits:
                pooled, labels = features[split].pooled, self._known(split, grid).labels
                if labels is None:
                    continue
                nearest = knn_predict(
                    fit.pooled, known.labels, pooled, classes, settings.knn.k, settings.knn.temperature
                )
                scores[split]["linear_top1"] = _accuracy(linear(pooled).argmax(dim=1), labels, classes)
                scores[split]["knn_top1"] = _accuracy(nearest, labels, classes)
        if known.patch_classes is not None:
            classes = len(self.sources[FIT].mask_classes)
            linear = fit_classifier(fit.patches.flatten(0, 1), known.patch_classes.flatten(), classes, settings.l2)
            for split in splits:
                target = self._known(split, grid).patch_classes
                if target is not None:
                    guess = torch.cat([linear(p).argmax(dim=2) for p in features[split].patches.split(_IMAGE_CHUNK)])
                    scores[split]["miou"] = float(multiclass_jaccard_index(guess, target, classes))
        if known.patch_depth is not None:
            depth = fit_regression(fit.patches.flatten(0, 1), known.patch_depth.flatten(), settings.l2)
            for split in splits:
                distance = self._known(split, grid).patch_depth
                if distance is not None:
                    guess = torch.cat([depth(p)[..., 0] for p in features[split].patches.split(_IMAGE_CHUNK)])
                    rmse = mean_squared_error(guess.flatten(), distance.flatten(), squared=False)
                    scores[split]["depth_rmse"] = float(rmse)
        return scores


def _accuracy(guess: torch.Tensor, labels: torch.Tensor, classes: int) -> float:
    return float(multiclass_accuracy(guess, labels, num_classes=classes, average="micro"))
