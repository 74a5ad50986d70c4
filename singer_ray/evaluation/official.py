"""Linear evaluation as the code that accompanies the paper does it (AIRLABkhu/SiNGER, tools/lineval).

What is the same: the heads read the last block's output before the final norm. Classification is one linear layer on
the class token (or on the mean of the patches). Segmentation is a 1 x 1 convolution on the patch tokens whose logits
are upsampled bilinearly to pixels. Depth is a 1 x 1 convolution on patch tokens and the repeated class token, upsampled
to pixels, into 256 bins: the target is round(255 x depth / max_depth), clamped to the bins, and the prediction is the
mean of linspace(0, max_depth) under softmax(logits / 0.03). Cross-entropy; SGD with weight decay and without momentum
(a momentum of 0.9 is parsed there and not passed on); cosine to 1e-8, stepped after every batch.

What that code reports: it saves the head after the last epoch (`last`) and the one with the best score on the *test*
split (`best`), and its test scripts load `best`. Ours is best on *validation*, so `test/official/.../best` is not
selected on what it is scored on; `last` involves no selection at all. Its training log averages mIoU over batches and
RMSE over images; its test scripts score the whole set, as here (`depth_rmse_per_image` is the log's figure).

What differs: features are computed once, in the evaluation view. So training has none of its random crops, flips and
colour jitter (the random crop of 0.8 of its depth recipe among them), and ADE20K images are cropped to a square rather
than squeezed into one. Ignored pixels are 255 in masks, not -1. Prefix tokens beside the class token (registers,
distillation) are not taken for patches; a network without class token gets the mean of its patches in the depth head.
A batch without a labelled pixel is passed over.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.functional.classification import multiclass_accuracy

from singer_ray.data.views import derive
from singer_ray.evaluation.features import Annotations, PixelAnnotations, ProbeFeatures
from singer_ray.evaluation.patch_targets import IGNORE
from singer_ray.evaluation.protocol import FIT, SELECT
from singer_ray.evaluation.scores import DELTA, rmse, top1

if TYPE_CHECKING:
    from singer_ray.config import OfficialConfig

BINS = 256
TEMPERATURE = 0.03
LOWEST_LR = 1e-8
_HEADS = ("classification", "segmentation", "depth")
_NOTHING = (
    "the fit images are of one class, or have no labels",
    "the fit images show one mask class, or none",
    "the fit images have no depth above 0",
)
_FLOATS = 2**25
"""Logits held at a time: larger batches are worked through in parts, whose gradients add up to the batch's."""


def bin_depth(depth: torch.Tensor, max_depth: float) -> torch.Tensor:
    """The bin of each depth: any shape, 0 .. `max_depth` -> int64 0 .. 255; what lies outside goes to the ends."""
    return ((depth / max_depth).clamp(0, 1) * (BINS - 1)).round().long()


def decode_depth(logits: torch.Tensor, max_depth: float) -> torch.Tensor:
    """Soft decoding: [batch, bins, height, width] -> depth [batch, height, width], in the unit of `max_depth`."""
    bins = torch.linspace(0, max_depth, logits.shape[1], device=logits.device)
    return torch.einsum("bkhw,k->bhw", (logits / TEMPERATURE).softmax(dim=1), bins)


def depth_scores(guess: torch.Tensor, target: torch.Tensor, max_depth: float) -> dict[str, float]:
    """Scores of depth maps [images, height, width], over the pixels where both lie strictly between 0 and `max_depth`.

    `depth_rmse`, `depth_delta1` and `depth_rel` (mean relative error) over all such pixels at once;
    `depth_rmse_per_image`: over every pixel of an image, then the mean over images. Without such pixels only the last.
    """
    scores = {"depth_rmse_per_image": float((guess - target).square().flatten(1).mean(dim=1).sqrt().mean())}
    valid = (target > 0) & (target < max_depth) & (guess > 0) & (guess < max_depth)
    if valid.any():
        guess, target = guess[valid], target[valid]
        scores["depth_rmse"] = rmse(guess, target)
        scores["depth_delta1"] = float((torch.maximum(guess / target, target / guess) < DELTA).float().mean())
        scores["depth_rel"] = float(((guess - target).abs() / target).mean())
    return scores


class DenseHead(nn.Module):
    """A 1 x 1 convolution on the grid of patches, brought to pixels: [batch, patches, dim] -> [batch, outputs, s, s].

    Where the grid covers less than the image (`covered`, in pixels), so do the maps.

    Logits are upsampled, for depth too, where the original upsamples features and then convolves: both maps are linear
    and the weights of an interpolation add up to 1, so the result is the same and costs much less.
    """

    def __init__(
        self, width: int, outputs: int, grid: tuple[int, int], size: int, covered: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        self.grid, self.size, self.covered = grid, size, covered or (size, size)
        self.convolution = nn.Conv2d(width, outputs, kernel_size=1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits = self.convolution(tokens.mT.unflatten(2, self.grid))
        maps = functional.interpolate(logits, size=self.covered, mode="bilinear", align_corners=False)
        return maps[..., : self.size, : self.size]


@dataclass(frozen=True)
class Task:
    """One head to train."""

    name: str
    make_head: Callable[[], nn.Module]
    inputs: Mapping[str, torch.Tensor]
    """Split -> what the head reads, [images, ...]."""
    targets: Mapping[str, torch.Tensor]
    """Split -> classes, [images] or [images, height, width]."""
    score: Callable[[nn.Module, str], dict[str, float]]
    """A head and a split -> scores by name."""
    select: Callable[[dict[str, float]], float]
    """The validation scores of an epoch -> what `best` maximises."""
    part: int = 2**20
    """Images worked through at a time."""
    ignore: int = -1
    """Target that is not counted."""


class Diverged(Exception):  # noqa: N818 (caught and told, no error of the program)
    """The loss stopped being finite."""


def train_head(
    task: Task, splits: Sequence[str], settings: OfficialConfig, seed: int, device: torch.device
) -> dict[str, float]:
    """`SPLIT/official/NAME/last` and, with validation images, `.../best`: the epoch with the best validation score.

    Deterministic for a seed on CPU. Raises Diverged.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, 0))
        head = task.make_head().to(device)
    inputs, targets = task.inputs[FIT], task.targets[FIT]
    steps = -(-len(inputs) // settings.batch_size)
    optimizer = torch.optim.SGD(head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs * steps, eta_min=LOWEST_LR)
    generator = torch.Generator().manual_seed(derive(seed, 1))
    best, best_state = float("-inf"), None
    for epoch in range(settings.epochs):
        for batch in torch.randperm(len(inputs), generator=generator).split(settings.batch_size):
            count = int((targets[batch] != task.ignore).sum())
            for part in batch.split(task.part) if count else ():
                guess, truth = head(inputs[part].to(device)), targets[part].to(device).long()
                loss = functional.cross_entropy(guess, truth, reduction="sum", ignore_index=task.ignore) / count
                if not torch.isfinite(loss):
                    raise Diverged(f"epoch {epoch + 1}")
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        if SELECT in splits and SELECT in task.targets:
            value = task.select(task.score(head, SELECT))
            if value > best:
                best, best_state = value, copy.deepcopy(head.state_dict())
    metrics = _named(task, head, splits, "last")
    if best_state is not None:
        head.load_state_dict(best_state)
        metrics |= _named(task, head, splits, "best")
    return metrics


@torch.no_grad()
def _named(task: Task, head: nn.Module, splits: Sequence[str], which: str) -> dict[str, float]:
    return {
        f"{split}/official/{name}/{which}": value
        for split in splits
        if split in task.targets
        for name, value in task.score(head, split).items()
    }


@dataclass(frozen=True)
class OfficialHeads:
    """The three heads for what is known of the images; see the module."""

    classes: int
    mask_classes: int
    grid: tuple[int, int]
    size: int
    """Height and width of the images, in pixels."""
    settings: OfficialConfig
    device: torch.device
    seed: int = 0
    covered: tuple[int, int] | None = None
    """Height and width in pixels that the grid covers; the whole image by default. What lies outside is not scored."""

    def run(
        self,
        features: Mapping[str, ProbeFeatures],
        known: Mapping[str, Annotations],
        pixels: Mapping[str, PixelAnnotations],
        splits: Sequence[str],
        log: Callable[[str], None] = lambda line: None,
    ) -> tuple[dict[str, float], list[str]]:
        """Metrics, and a line for each head that diverged."""
        metrics: dict[str, float] = {}
        notes = []
        tasks = (
            self._classification(features, known),
            self._segmentation(features, pixels),
            self._depth(features, pixels),
        )
        annotated = [
            any(plane is not None for plane in planes)
            for planes in (
                [each.labels for each in known.values()],
                [each.masks for each in pixels.values()],
                [each.depth for each in pixels.values()],
            )
        ]
        for number, task in enumerate(tasks):
            if task is None:
                if annotated[number]:
                    notes.append(f"no official {_HEADS[number]} scores: {_NOTHING[number]}")
                continue
            log(f"training the {task.name} head for {self.settings.epochs} epochs")
            try:
                seed = derive(self.seed, number)
                metrics |= train_head(task, splits, self.settings, seed, self.device)
            except Diverged as stopped:
                notes.append(
                    f"no official {task.name} scores: the loss of the head is not finite in {stopped}; lower "
                    f"evaluation.official.lr {self.settings.lr:g}"
                )
        return metrics, notes

    def _classification(self, features: Mapping[str, ProbeFeatures], known: Mapping[str, Annotations]) -> Task | None:
        targets = {split: each.labels for split, each in known.items() if each.labels is not None}
        if FIT not in targets or targets[FIT].unique().numel() < 2:
            return None
        inputs = {split: self._image_token(features[split]) for split in targets}

        @torch.no_grad()
        def score(head: nn.Module, split: str) -> dict[str, float]:
            logits, labels = head(inputs[split]), targets[split]
            scores = {"top1": top1(logits.argmax(dim=1), labels, self.classes)}
            if self.classes > 5:
                scores["top5"] = float(multiclass_accuracy(logits, labels, self.classes, average="micro", top_k=5))
            return scores

        width = inputs[FIT].shape[1]
        return Task(
            "classification",
            lambda: nn.Linear(width, self.classes),
            inputs,
            targets,
            score,
            lambda scores: scores["top1"],
        )

    def _segmentation(
        self, features: Mapping[str, ProbeFeatures], pixels: Mapping[str, PixelAnnotations]
    ) -> Task | None:
        masks = {split: self._seen(each.masks) for split, each in pixels.items() if each.masks is not None}
        targets = {split: mask for split, mask in masks.items() if (mask != IGNORE).any()}
        if FIT not in targets or targets[FIT][targets[FIT] != IGNORE].unique().numel() < 2:
            return None
        inputs = {split: features[split].patches for split in targets}
        part = self._part(self.mask_classes)

        @torch.no_grad()
        def score(head: nn.Module, split: str) -> dict[str, float]:
            metric = MulticlassJaccardIndex(self.mask_classes, ignore_index=IGNORE).to(self.device)
            for tokens, mask in zip(inputs[split].split(part), targets[split].split(part)):
                metric.update(head(tokens).argmax(dim=1), mask.to(self.device).long())
            return {"miou": float(metric.compute())}

        width = inputs[FIT].shape[2]
        return Task(
            "segmentation",
            lambda: self._dense(width, self.mask_classes),
            inputs,
            targets,
            score,
            lambda scores: scores["miou"],
            part,
            IGNORE,
        )

    def _depth(self, features: Mapping[str, ProbeFeatures], pixels: Mapping[str, PixelAnnotations]) -> Task | None:
        depth = {split: self._seen(each.depth) for split, each in pixels.items() if each.depth is not None}
        if FIT not in depth or not depth[FIT].max() > 0:
            return None
        farthest = self.settings.max_depth or float(depth[FIT].max())
        part = self._part(BINS)
        inputs = {}
        for split in depth:
            patches = features[split].patches
            token = features[split].class_token
            image = patches.mean(dim=1) if token is None else token
            inputs[split] = torch.cat([patches, image[:, None].expand_as(patches)], dim=2)

        @torch.no_grad()
        def score(head: nn.Module, split: str) -> dict[str, float]:
            guess = torch.cat([decode_depth(head(tokens), farthest).cpu() for tokens in inputs[split].split(part)])
            return depth_scores(guess, depth[split].cpu().clamp(0, farthest), farthest)

        targets = {split: bin_depth(planes, farthest).to(torch.int16) for split, planes in depth.items()}
        width = inputs[FIT].shape[2]
        return Task(
            "depth",
            lambda: self._dense(width, BINS),
            inputs,
            targets,
            score,
            lambda scores: -scores["depth_rmse_per_image"],
            part,
        )

    def _image_token(self, features: ProbeFeatures) -> torch.Tensor:
        if self.settings.mode == "avg":
            return features.patches.mean(dim=1)
        assert features.class_token is not None, "FrozenEvaluation.check comes first"
        return features.class_token

    def _dense(self, width: int, outputs: int) -> DenseHead:
        return DenseHead(width, outputs, self.grid, self.size, self.covered)

    def _seen(self, planes: torch.Tensor) -> torch.Tensor:
        """The pixels that the grid covers."""
        return planes if self.covered is None else planes[..., : self.covered[0], : self.covered[1]]

    def _part(self, outputs: int) -> int:
        return max(1, _FLOATS // (outputs * self.size**2))
