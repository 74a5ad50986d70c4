"""What every trial of a search shares: teacher, images, probes and the device."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from singer_ray.data.loader import Batch, training_batches
from singer_ray.data.remarks import data_remarks
from singer_ray.data.source import Source, shuffled_subset
from singer_ray.data.splits import Splits, open_splits
from singer_ray.data.views import EvaluationView, TrainingView
from singer_ray.errors import UserError
from singer_ray.evaluation.suite import FIT, ProbeSuite
from singer_ray.method.layers import default_layers
from singer_ray.vision.fitting import check_fit
from singer_ray.vision.models import load_teacher, normalization_of
from singer_ray.vision.tapped import Features, TappedViT

if TYPE_CHECKING:
    from singer_ray.config import Config


class TrainContext:
    """Teacher, sources and probes of a configuration, on one device.

    What a search may vary (`method`, `student`, most of `train`) is asked of each trainer's own configuration, so one
    context serves all trials of a host.

    Args:
        teacher: a timm-like Vision Transformer of one's own, instead of `config.teacher.name`.
        data: sources of one's own under "train", "val" and "test", instead of `config.data`.
        probe_data: annotated sources of one's own for the probes, instead of `config.evaluation.data`.

    Raises UserError for whatever is missing or does not fit.
    """

    def __init__(
        self,
        config: Config,
        *,
        teacher: nn.Module | None = None,
        data: Splits | None = None,
        probe_data: Splits | None = None,
    ) -> None:
        self.config = config
        self.device = pick_device(config.train.device)
        torch.set_num_threads(config.train.threads)
        splits = dict(data) if data is not None else open_splits(config.data)
        self.train: Source = splits["train"]
        size, crop = config.data.image_size, config.data.crop_pct
        if teacher is None:
            settings = config.teacher
            teacher = load_teacher(settings.name, size, pretrained=settings.pretrained, checkpoint=settings.checkpoint)
        # A teacher of one's own may be in half precision: forward passes get theirs from `train.precision`, norms stay
        # in float32.
        self.teacher_model = teacher.eval().requires_grad_(False).float().to(self.device)
        self.normalize = normalization_of(teacher)
        self.evaluation_view = EvaluationView(size, crop)
        self.training_view = TrainingView(size, crop, config.data.augment, config.data.crop_scale, config.seed)
        self.suite = ProbeSuite(
            self._probe_sources(splits, probe_data), self.evaluation_view, config.evaluation, self.device
        )
        check_fit(self.teacher_model, self.teacher_name, size)
        self.last_teacher = self.tapped_teacher([len(TappedViT(teacher, [0], name=self.teacher_name).blocks) - 1])

    @functools.cached_property
    def remarks(self) -> list[str]:
        """What a person should know before training, in lines: see `data_remarks`; and what the teacher does not see.

        Read once, by whoever prints it: looking at the images takes seconds. Raises UserError for labels, masks or
        depth that cannot be.
        """
        unseen = self.last_teacher.unseen(self.config.data.image_size)
        return [*data_remarks(self.suite.sources, self.suite.targets, self.train), *([unseen] if unseen else [])]

    @property
    def teacher_name(self) -> str:
        return f"teacher {self.config.teacher.name}"

    def tapped_teacher(self, layers: list[int]) -> TappedViT:
        """The teacher, read at `layers`."""
        return TappedViT(self.teacher_model, layers, name=self.teacher_name)

    def distilled_layers(self) -> tuple[int, ...]:
        """D: as configured, else the layer at 3/4 of the depth and the last."""
        return self.config.teacher.layers or default_layers(self.last_teacher.depth)

    def batches(
        self,
        *,
        batch_size: int,
        first_step: int = 0,
        rank: int = 0,
        world: int = 1,
        seed: int,
        view_seed: int | None = None,
    ) -> Iterator[Batch]:
        """Endless training batches; see `training_batches`. Views are drawn by `view_seed`, else the context's seed."""
        view = self.training_view if view_seed is None else self.training_view.seeded(view_seed)
        return training_batches(
            self.train,
            view,
            batch_size=batch_size,
            seed=seed,
            first_step=first_step,
            rank=rank,
            world=world,
            workers=self.config.data.loader_workers,
        )

    def pixels(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The images of a batch, on the device and normalised as the teacher wants them."""
        return self.normalize(batch["image"].to(self.device, non_blocking=True))

    def teacher_pass(self, teacher: TappedViT, pixels: torch.Tensor, precision: str | None = None) -> Features:
        """Images in, tapped teacher features out: the half of a step that trials of one precision can share."""
        with torch.no_grad(), self.autocast(precision):
            features: Features = teacher(pixels)
            return features

    def autocast(self, precision: str | None = None) -> torch.autocast:
        """A forward pass in `precision`, as `train.precision` names it; by default the context's own."""
        kind = pick_precision(precision or self.config.train.precision, self.device)
        return torch.autocast(self.device.type, kind or torch.bfloat16, enabled=kind is not None)

    def _probe_sources(self, splits: Splits, own: Splits | None) -> dict[str, Source]:
        settings = self.config.evaluation
        sources: dict[str, Source]
        if own is not None:
            sources = dict(own)
        elif settings.data.source == "same":
            sources = dict(splits)
        else:
            sources = open_splits(settings.data, "evaluation.data")
        if FIT in sources:
            sources[FIT] = shuffled_subset(sources[FIT], settings.fit_images)
        return sources


def pick_device(name: str) -> torch.device:
    """The device that `train.device` means. Raises UserError for cuda without a GPU."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device is 'cuda', but torch sees no GPU here. Allowed: auto or cpu; check nvidia-smi.")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def pick_precision(name: str, device: torch.device) -> torch.dtype | None:
    """The autocast type, or None for float32 throughout."""
    if name == "bfloat16" or (name == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()):
        return torch.bfloat16
    return None
