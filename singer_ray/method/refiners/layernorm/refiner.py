"""Normalised targets: every patch gets mean 0 and the same length."""

from __future__ import annotations

import torch
from torch.nn import functional

from singer_ray.method.refiners.base import PatchwiseRefiner


class NormalizedTargets(PatchwiseRefiner):
    """LayerNorm without affine on each patch, at the length of the layer's median patch so that scales stay."""

    def refine_patches(self, patches: torch.Tensor, median_norm: float) -> torch.Tensor:
        normalized = functional.layer_norm(patches.float(), patches.shape[-1:])
        scaled: torch.Tensor = normalized * (median_norm / patches.shape[-1] ** 0.5)
        return scaled.to(patches.dtype)


REFINER = NormalizedTargets
