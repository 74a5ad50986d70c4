"""Defective patches filled in from the normal ones around them, as SINDER repairs them (ECCV 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from singer_ray.method.artifacts import outlier_mask, patch_norms
from singer_ray.method.refiners.base import PatchwiseRefiner

if TYPE_CHECKING:
    from singer_ray.config import MethodConfig
    from singer_ray.method.refiners.neighbours.settings import NeighboursConfig
    from singer_ray.vision.tapped import TappedViT

FLOOR = 1e-12
"""Least weight of any patch: where no normal one is near, all normal ones count alike."""


class Neighbours(PatchwiseRefiner):
    """Replaces defective patches by a mean over the normal ones of their image.

    Defective is a patch whose norm is above `method.neighbours.ratio` times the median norm of its image. The weights
    fall with the distance on the grid as a Gaussian of `method.neighbours.sigma` patches. An image without a normal
    patch is left as it is.
    """

    spatial = True
    weights: torch.Tensor
    """float32 [patches, patches]"""

    def __init__(self, teacher: TappedViT, layers: Sequence[int], method: MethodConfig) -> None:
        super().__init__(teacher, layers, method)
        settings: NeighboursConfig = method.own("neighbours")
        self.ratio, self.sigma = settings.ratio, settings.sigma

    def lay_out(self, grid: tuple[int, int]) -> None:
        places = torch.cartesian_prod(*(torch.arange(float(count)) for count in grid))
        distances = torch.cdist(places, places)
        weights = (-0.5 * (distances / self.sigma).square()).exp().clamp_min(FLOOR)
        self.register_buffer("weights", weights, persistent=False)

    def refine_patches(self, patches: torch.Tensor, median_norm: float) -> torch.Tensor:
        defective = outlier_mask(patch_norms(patches), self.ratio)[..., None]
        normal = ~defective
        with torch.autocast(patches.device.type, enabled=False):
            whole = patches.float()
            near = self.weights @ torch.where(normal, whole, 0.0)
            filled = near / (self.weights @ normal.float()).clamp_min(FLOOR)
        replaced = defective & normal.any(dim=1, keepdim=True)
        return torch.where(replaced, filled.to(patches.dtype), patches)


REFINER = Neighbours
