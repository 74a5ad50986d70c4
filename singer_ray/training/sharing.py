"""One teacher pass for all trainers that read the teacher alike."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING

import torch

from singer_ray.training.context import TrainContext
from singer_ray.vision.tapped import Features

if TYPE_CHECKING:
    from singer_ray.training.trainer import StudentTrainer


class SharedPasses:
    """The teacher passes of trainers of one context, as few as their wrappers allow.

    The trainers must be ready to step: what a wrapper finds on its images decides who can share.
    """

    def __init__(self, trainers: Mapping[str, StudentTrainer]) -> None:
        alike: dict[Hashable, list[str]] = {}
        for name, trainer in trainers.items():
            alike.setdefault((type(trainer.teacher), trainer.teacher.key), []).append(name)
        self.groups = [
            (trainers[names[0]].teacher.at(n for name in names for n in trainers[name].teacher.layers), names)
            for names in alike.values()
        ]

    def __call__(
        self, context: TrainContext, pixels: torch.Tensor, precision: str | None = None
    ) -> dict[str, Features]:
        """Normalised images -> each trainer's features, at the layers that it reads and those of others."""
        read = [(context.teacher_pass(teacher, pixels, precision), names) for teacher, names in self.groups]
        return {name: features for features, names in read for name in names}
