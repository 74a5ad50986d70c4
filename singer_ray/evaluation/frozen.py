"""The evaluation of frozen networks: features once, then probes, artifacts and the likeness to a teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from singer_ray.data.loader import evaluation_batches
from singer_ray.data.source import Source
from singer_ray.data.views import EvaluationView
from singer_ray.errors import UserError
from singer_ray.evaluation.features import ProbeFeatures
from singer_ray.evaluation.official import OfficialHeads
from singer_ray.evaluation.patch_targets import IGNORE
from singer_ray.evaluation.protocol import FIT, SELECT, Probed
from singer_ray.evaluation.scores import artifact_share
from singer_ray.evaluation.suite import INFIXES, ProbeSuite, Reader
from singer_ray.method.artifacts import gram_cosine, max_median_ratio, patch_norms
from singer_ray.vision.networks import Network
from singer_ray.vision.tapped import evaluating

if TYPE_CHECKING:
    from singer_ray.config import EvaluationConfig

_GRAM_BATCH = 64
_NAMED = 5


@dataclass
class Evaluated:
    """What is known of one network."""

    metrics: dict[str, float] = field(default_factory=dict)
    l2: dict[str, float] = field(default_factory=dict)
    """Score -> regulariser of its probe."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the metrics must know: classes that do not occur, metrics that could not be had."""


def check_sources(sources: Mapping[str, Source], block: str) -> list[str]:
    """The splits that can be scored. Raises UserError when there are none, or when nothing is known of the images.

    `block` is the configuration block that the sources come from, for messages.
    """
    splits = [split for split in (SELECT, "test") if split in sources]
    if FIT not in sources or not splits:
        raise UserError(
            f"{block} has no validation or test images to score. Give --{block}.val DIR, --{block}.test DIR or both."
        )
    if not any(sources[FIT].fields & sources[split].fields for split in splits):
        had = "; ".join(f"{s}: {', '.join(sorted(sources[s].fields)) or 'none'}" for s in (FIT, *splits))
        raise UserError(
            f"{block} has no annotation that both the fit images ({FIT}) and {' or '.join(splits)} share ({had}). "
            "Give images in one folder per class, or with masks."
        )
    return splits


class FrozenEvaluation:
    """Evaluates networks on the same sources, each in the view that it was made for.

    Metrics, all over the whole split:

    - `SPLIT/linear_top1`, `knn_top1`, `miou` (over patches), `depth_rmse`, `depth_delta1`: see `Protocol`;
    - `SPLIT/max_median_norm`: largest over median patch norm of an image, mean over images;
    - `SPLIT/artifact_share`: share of patches above `settings.artifact_ratio` x the median norm of their image;
    - `SPLIT/gram_cosine`, on the first split: cosine of the patch Gram matrices of network and teacher on the same
      views, mean over images; only where both have the same grid of patches.

    Each is read before the final norm and, as `SPLIT/after_norm/...`, after it. With `settings.protocol` official, the
    heads of `OfficialHeads` replace the probes.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        splits: Sequence[str],
        settings: EvaluationConfig,
        device: torch.device,
        *,
        teacher: Network | None = None,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        self.sources, self.splits, self.settings, self.device = dict(sources), list(splits), settings, device
        self.teacher, self.workers, self.seed = teacher, workers, seed
        self._suites: dict[tuple[int, float], ProbeSuite] = {}

    def check(self, network: Network) -> None:
        """Raises UserError when the settings do not suit the network."""
        if self.settings.protocol == "probes" and self.settings.pooling == "class":
            setting, allowed = "evaluation.pooling", "mean"
        elif self.settings.protocol == "official" and self.settings.official.mode == "cls":
            setting, allowed = "evaluation.official.mode", "avg"
        else:
            return
        if not network.tapped.has_class_token:
            raise UserError(f"network {network.name} has no class token to read. Use --{setting} {allowed}.")

    def run(self, network: Network, log: Callable[[str], None] = lambda line: None) -> Evaluated:
        """All metrics of a network."""
        key = (network.image_size, network.crop_pct)
        if key not in self._suites:
            self._suites[key] = ProbeSuite(self.sources, EvaluationView(*key), self.settings, self.device)
        suite, done = self._suites[key], Evaluated()
        reader = Reader(network.tapped.to(self.device), network.normalize, network.grid, network.covered)
        features = {split: suite.features(reader, split, workers=self.workers) for split in (FIT, *self.splits)}
        if not all(torch.isfinite(places["before_norm"].pooled).all() for places in features.values()):
            raise UserError(f"network {network.name} gives features that are not finite numbers. Give other weights.")
        done.notes += self._absent_classes(suite, network)
        if self.settings.protocol == "official":
            self._train_heads(suite, features, network, done, log)
        else:
            self._probe(suite, features, network, done)
        for place, infix in INFIXES.items():
            for split in self.splits:
                norms = patch_norms(features[split][place].patches)
                done.metrics[f"{split}/{infix}max_median_norm"] = float(max_median_ratio(norms).mean())
                done.metrics[f"{split}/{infix}artifact_share"] = artifact_share(norms, self.settings.artifact_ratio)
        self._compare_with_teacher(features[self.splits[0]], network, done)
        network.tapped.cpu()
        return done

    def _train_heads(
        self,
        suite: ProbeSuite,
        features: Mapping[str, dict[str, ProbeFeatures]],
        network: Network,
        done: Evaluated,
        log: Callable[[str], None],
    ) -> None:
        used = (FIT, *self.splits)
        fit = self.sources[FIT]
        heads = OfficialHeads(
            len(fit.classes),
            len(fit.mask_classes),
            network.grid,
            network.image_size,
            self.settings.official,
            self.device,
            self.seed,
            network.covered,
        )
        metrics, notes = heads.run(
            {split: features[split]["before_norm"] for split in used},
            {split: suite.annotations(split, network.grid, network.covered) for split in used},
            {split: suite.pixel_annotations(split) for split in used},
            self.splits,
            lambda line: log(f"{network.name}: {line}"),
        )
        done.metrics |= metrics
        done.notes += notes
        if SELECT not in self.splits:
            done.notes.append("no validation images: the official heads have no best epoch, only the last")

    def _probe(
        self, suite: ProbeSuite, features: Mapping[str, dict[str, ProbeFeatures]], network: Network, done: Evaluated
    ) -> None:
        probed = Probed()
        for place, infix in INFIXES.items():
            read = {split: places[place] for split, places in features.items()}
            if place == "before_norm" or not isinstance(network.tapped.final_norm, nn.Identity):
                probed = suite.probe(read, self.splits, network.grid, network.covered, l2_grid=self.settings.l2_grid)
            done.notes += [note for note in probed.notes if note not in done.notes]
            done.l2 |= {f"{infix}{name}": l2 for name, l2 in probed.l2.items()}
            for split, scores in probed.scores.items():
                done.metrics |= {f"{split}/{infix}{name}": score for name, score in scores.items()}
        if self.settings.l2_grid and SELECT not in self.splits:
            done.notes.append(f"no validation images: every regulariser is evaluation.l2 {self.settings.l2:g}")

    def _compare_with_teacher(self, features: Mapping[str, ProbeFeatures], network: Network, done: Evaluated) -> None:
        teacher, split = self.teacher, self.splits[0]
        if teacher is None:
            return
        if teacher.grid != network.grid:
            grids = [f"{rows} x {columns}" for rows, columns in (network.grid, teacher.grid)]
            done.notes.append(f"no gram_cosine: its grid of patches is {grids[0]}, that of {teacher.name} {grids[1]}")
            return
        shares = [n.covered[0] / n.image_size for n in (network, teacher)]
        if abs(shares[0] - shares[1]) > 0.5 / network.grid[0]:  # the last patches would be half a patch apart
            done.notes.append(
                f"no gram_cosine: its patches cover {shares[0]:.1%} of the image, those of {teacher.name} "
                f"{shares[1]:.1%}. Give a --data.image_size that both divide"
            )
            return
        # The teacher's own size, but the network's crop: both must see the same part of the image.
        view = EvaluationView(teacher.image_size, network.crop_pct)
        sums, first = dict.fromkeys(INFIXES, 0.0), 0
        teacher.tapped.to(self.device)
        with evaluating(teacher.tapped):
            for batch in evaluation_batches(self.sources[split], view, batch_size=_GRAM_BATCH, workers=self.workers):
                pixels = teacher.normalize(batch["image"].to(self.device))
                tokens = teacher.tapped(pixels).tokens[teacher.tapped.layers[-1]]
                for place, read in (("before_norm", tokens), ("after_norm", teacher.tapped.final_norm(tokens))):
                    own = features[place].patches[first : first + len(pixels)]
                    sums[place] += float(gram_cosine(own, read[:, teacher.tapped.prefix :].float()).sum())
                first += len(pixels)
        for place, infix in INFIXES.items():
            done.metrics[f"{split}/{infix}gram_cosine"] = sums[place] / first

    def _absent_classes(self, suite: ProbeSuite, network: Network) -> list[str]:
        notes = []
        fit = self.sources[FIT]
        for split in (FIT, *self.splits):
            known = suite.annotations(split, network.grid, network.covered)
            for what, names, values in (
                ("class", fit.classes, known.labels),
                ("mask class", fit.mask_classes, known.patch_classes),
            ):
                if values is None:
                    continue
                present = set(values.unique().tolist()) - {IGNORE if what == "mask class" else -1}
                absent = [name for i, name in enumerate(names) if i not in present]
                if absent:
                    notes.append(_absence(what, absent, len(names), split))
        return notes


def _absence(what: str, absent: Sequence[str], count: int, split: str) -> str:
    named = ", ".join(map(repr, absent[:_NAMED])) + (", ..." if len(absent) > _NAMED else "")
    images = "fit images" if split == FIT else f"{split} images"
    effect = "nothing there can be right" if what == "class" else "left out of miou, or 0 where guessed"
    if split == FIT:
        effect = "never predicted; raise evaluation.fit_images"
    return f"{len(absent)} of {count} {what} names do not occur in the {images} ({effect}): {named}"
