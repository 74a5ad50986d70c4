"""The probes of a network, fitted on training images and scored on validation or test images."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from singer_ray import metrics
from singer_ray.data.source import Source
from singer_ray.data.targets import Targets, check_targets
from singer_ray.data.views import EvaluationView
from singer_ray.evaluation.features import (
    Annotations,
    PixelAnnotations,
    ProbeFeatures,
    annotations_of,
    features_of,
    pixel_annotations_of,
)
from singer_ray.evaluation.protocol import FIT, Probed, Protocol
from singer_ray.vision.models import Normalization
from singer_ray.vision.tapped import TappedViT

if TYPE_CHECKING:
    from singer_ray.config import EvaluationConfig

__all__ = ["FIT", "INFIXES", "ProbeSuite", "Reader"]

Pair = tuple[int, int]
INFIXES = {"before_norm": "", "after_norm": "after_norm/"}
"""Where features are read -> what a metric's name holds between split and score."""


@dataclass(frozen=True)
class Reader:
    """A network as the probes see it."""

    network: TappedViT
    """Tapped at its last layer."""
    normalize: Normalization
    grid: tuple[int, int]
    """Rows and columns of its patches."""
    covered: tuple[int, int] | None = None
    """Height and width of the view, in pixels, that these cover; all of it by default."""


class ProbeSuite:
    """Linear probe, nearest neighbours, patch segmentation and patch depth on frozen last-block features.

    `sources` maps "train" (what the probes are fitted on), "val" and "test" to sources; missing ones give no metrics,
    and so do annotations that a source does not have. Annotations are read once and kept.
    """

    def __init__(
        self, sources: Mapping[str, Source], view: EvaluationView, settings: EvaluationConfig, device: torch.device
    ) -> None:
        self.sources, self.view, self.settings, self.device = dict(sources), view, settings, device
        self._annotations: dict[tuple[str, Pair, Pair | None], Annotations] = {}
        self._pixels: dict[str, PixelAnnotations] = {}
        self.notes: list[str] = []
        """What could not be measured so far, and why."""

    def splits(self) -> list[str]:
        """The splits that can be scored."""
        return [name for name in ("val", "test") if name in self.sources]

    def annotations_shared(self) -> frozenset[str]:
        """What the probes can be fitted on and scored by: any of "label", "mask", "depth"."""
        scored = [self.sources[split].fields for split in self.splits()]
        return self.sources[FIT].fields & frozenset().union(*scored) if FIT in self.sources and scored else frozenset()

    def metric_names(self) -> list[str]:
        """What a validation score will hold, best first: what a search may optimise."""
        if FIT not in self.sources or "val" not in self.sources:
            return []
        shared = self.sources[FIT].fields & self.sources["val"].fields
        measured = {name for field in shared for name in metrics.probed(field)}
        names = [f"val/{name}" for name in metrics.best_first() if name in measured]
        return [name for name in names if name not in self.targets.unmeasured]

    @functools.cached_property
    def targets(self) -> Targets:
        """What a look at the targets shows: see `check_targets`. Raises UserError for those that do not fit."""
        return check_targets(self.sources)

    def score(self, reader: Reader, splits: Sequence[str], *, after_norm: bool = False) -> dict[str, float]:
        """`SPLIT/linear_top1`, `knn_top1`, `miou` (over patches), all in 0..1, `depth_rmse` in the unit of the source.

        Features are the last block's output before the final norm; with `after_norm` also, as
        `SPLIT/after_norm/...`, what the exported model's `forward_features` gives.
        """
        wanted = [name for name in splits if name in self.sources]
        if FIT not in self.sources or not wanted:
            return {}
        features = {name: self.features(reader, name) for name in (FIT, *wanted)}
        in_training = metrics.best_first()
        scores: dict[str, float] = {}
        for name, infix in INFIXES.items():
            if name == "after_norm" and not after_norm:
                continue
            read = {split: places[name] for split, places in features.items()}
            for split, probed in self.probe(read, wanted, reader.grid, reader.covered).scores.items():
                scores |= {f"{split}/{infix}{key}": value for key, value in probed.items() if key in in_training}
        return scores

    def features(self, reader: Reader, split: str, *, workers: int = 0) -> dict[str, ProbeFeatures]:
        """Last-block features of a split, `before_norm` and `after_norm`."""
        return features_of(
            reader.network,
            reader.normalize,
            self.sources[split],
            self.view,
            self.device,
            pooling=self.settings.pooling,
            batch_size=self.settings.batch_size,
            workers=workers,
        )

    def annotations(self, split: str, grid: Pair, covered: Pair | None = None) -> Annotations:
        """What is known of a split, on a grid of patches that covers so many pixels."""
        key = (split, grid, covered)
        if key not in self._annotations:
            self._annotations[key] = annotations_of(self.sources[split], self.view, grid, self.device, covered)
        return self._annotations[key]

    def pixel_annotations(self, split: str) -> PixelAnnotations:
        """What is known of the pixels of a split."""
        if split not in self._pixels:
            self._pixels[split] = pixel_annotations_of(self.sources[split], self.view)
        return self._pixels[split]

    def probe(
        self,
        features: Mapping[str, ProbeFeatures],
        splits: Sequence[str],
        grid: Pair,
        covered: Pair | None = None,
        *,
        l2_grid: Sequence[float] = (),
    ) -> Probed:
        """Fits on FIT's features and scores those of `splits`; see `Protocol`."""
        fit = self.sources[FIT]
        known = {split: self.annotations(split, grid, covered) for split in (FIT, *splits)}
        protocol = Protocol(len(fit.classes), len(fit.mask_classes), self.settings, l2_grid)
        probed = protocol.run(features, known, splits)
        said = {metric for name in self.targets.unmeasured for metric in (name, name.rpartition("/")[2])}
        probed.missing = {name: why for name, why in probed.missing.items() if name not in said}
        self.notes += [note for note in probed.notes if note not in self.notes]
        return probed
