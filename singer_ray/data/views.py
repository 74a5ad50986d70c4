"""Views of an image: what the networks are shown. All of them uint8; networks normalise by themselves."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from singer_ray.data.source import Sample


class TrainingView:
    """A view drawn from (seed, image index, view number), never from global state.

    So a run that resumes sees the views that it would have seen, and so do two trials with one seed.
    `augment` is "none" (the evaluation view) or "crop_flip" (random resized crop and horizontal flip).
    """

    def __init__(self, size: int, crop_pct: float, augment: str, crop_scale: tuple[float, float], seed: int) -> None:
        self.seed = seed
        self.plain = EvaluationView(size, crop_pct)
        self.random: v2.Transform | None = None
        if augment == "crop_flip":
            self.random = v2.Compose(
                [
                    v2.RandomResizedCrop(
                        size, scale=crop_scale, interpolation=InterpolationMode.BICUBIC, antialias=True
                    ),
                    v2.RandomHorizontalFlip(),
                ]
            )

    def seeded(self, seed: int) -> TrainingView:
        """The same, drawn from another seed."""
        other = copy.copy(self)
        other.seed = seed
        return other

    def __call__(self, image: torch.Tensor, index: int, number: int) -> torch.Tensor:
        """uint8 [3, height, width] -> uint8 [3, size, size]."""
        if self.random is None:
            return self.plain.image(image)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(self.seed, index, number))
            view: torch.Tensor = self.random(image)
            return view


class EvaluationView:
    """The central square: the shorter side is resized to size / crop_pct, then `size` pixels are cut out.

    Masks are resized with nearest neighbours, depth linearly, so that they stay aligned with the image.
    """

    def __init__(self, size: int, crop_pct: float) -> None:
        self.size, self.resized = size, round(size / crop_pct)

    def image(self, image: torch.Tensor) -> torch.Tensor:
        return self._cut(image, InterpolationMode.BICUBIC)

    def __call__(self, sample: Sample) -> Sample:
        seen = sample.copy()
        seen["image"] = self.image(sample["image"])
        if "mask" in sample:
            seen["mask"] = self._cut(sample["mask"][None], InterpolationMode.NEAREST)[0]
        if "depth" in sample:
            seen["depth"] = self._cut(sample["depth"][None], InterpolationMode.BILINEAR)[0]
        return seen

    def _cut(self, plane: torch.Tensor, interpolation: InterpolationMode) -> torch.Tensor:
        if tuple(plane.shape[-2:]) == (self.size, self.size) and self.resized == self.size:
            return plane
        resized = functional.resize(plane, [self.resized], interpolation=interpolation, antialias=True)
        cut: torch.Tensor = functional.center_crop(resized, [self.size, self.size])
        return cut


def derive(*numbers: int) -> int:
    """One 63-bit seed out of several numbers; near numbers give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(2, np.uint32).astype(np.uint64) @ (1, 2**31))
