"""Norm clipping: the simplest remedy, and a strong baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from singer_ray.method.losses import row_quantile
from singer_ray.method.refiners.base import PatchwiseRefiner

if TYPE_CHECKING:
    from singer_ray.config import MethodConfig
    from singer_ray.vision.tapped import TappedViT


class Clip(PatchwiseRefiner):
    """Shortens patches longer than `method.clip.ratio` times the median norm of their image to that length."""

    def __init__(self, teacher: TappedViT, layers: Sequence[int], method: MethodConfig) -> None:
        super().__init__(teacher, layers, method)
        self.ratio = method.clip.ratio

    def refine_patches(self, patches: torch.Tensor, median_norm: float) -> torch.Tensor:
        norms = patches.float().norm(dim=-1)
        return shorten(patches, norms, self.ratio * norms.median(dim=1, keepdim=True).values)


class QuantileClip(PatchwiseRefiner):
    """Shortens patches longer than the `method.quantile_clip.quantile` of their image's norms to that length."""

    def __init__(self, teacher: TappedViT, layers: Sequence[int], method: MethodConfig) -> None:
        super().__init__(teacher, layers, method)
        self.quantile = method.quantile_clip.quantile

    def refine_patches(self, patches: torch.Tensor, median_norm: float) -> torch.Tensor:
        norms = patches.float().norm(dim=-1)
        return shorten(patches, norms, row_quantile(norms, self.quantile))


def shorten(patches: torch.Tensor, norms: torch.Tensor, most: torch.Tensor) -> torch.Tensor:
    """Patches [batch, patches, dim] of `norms` [batch, patches], cut to `most` [batch, 1]; directions stay."""
    factors = (most / norms.clamp_min(1e-12)).clamp_max(1.0)
    return (patches.float() * factors[..., None]).to(patches.dtype)
