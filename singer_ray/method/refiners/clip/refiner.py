"""Norm clipping: the simplest remedy, and a strong baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from singer_ray.method.refiners.base import PatchwiseRefiner, shorten

if TYPE_CHECKING:
    from singer_ray.config import MethodConfig
    from singer_ray.method.refiners.clip.settings import ClipConfig
    from singer_ray.vision.tapped import TappedViT


class Clip(PatchwiseRefiner):
    """Shortens patches longer than `method.clip.ratio` times the median norm of their image to that length."""

    def __init__(self, teacher: TappedViT, layers: Sequence[int], method: MethodConfig) -> None:
        super().__init__(teacher, layers, method)
        settings: ClipConfig = method.own("clip")
        self.ratio = settings.ratio

    def refine_patches(self, patches: torch.Tensor, median_norm: float) -> torch.Tensor:
        norms = patches.float().norm(dim=-1)
        return shorten(patches, norms, self.ratio * norms.median(dim=1, keepdim=True).values)


REFINER = Clip
