"""Norm clipping at a quantile of each image's norms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from singer_ray.method.losses import row_quantile
from singer_ray.method.refiners.base import PatchwiseRefiner, shorten

if TYPE_CHECKING:
    from singer_ray.config import MethodConfig
    from singer_ray.method.refiners.quantile_clip.settings import QuantileClipConfig
    from singer_ray.vision.tapped import TappedViT


class QuantileClip(PatchwiseRefiner):
    """Shortens patches longer than the `method.quantile_clip.quantile` of their image's norms to that length."""

    def __init__(self, teacher: TappedViT, layers: Sequence[int], method: MethodConfig) -> None:
        super().__init__(teacher, layers, method)
        settings: QuantileClipConfig = method.own("quantile_clip")
        self.quantile = settings.quantile

    def refine_patches(self, patches: torch.Tensor, median_norm: float) -> torch.Tensor:
        norms = patches.float().norm(dim=-1)
        return shorten(patches, norms, row_quantile(norms, self.quantile))


REFINER = QuantileClip
