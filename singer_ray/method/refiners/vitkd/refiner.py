"""ViTKD: masked generation of the teacher's last features (arXiv 2209.02432)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from singer_ray.method.losses import distillation_loss
from singer_ray.method.refiners.base import Refiner

if TYPE_CHECKING:
    from singer_ray.config import MethodConfig
    from singer_ray.method.refiners.vitkd.settings import VitkdConfig
    from singer_ray.vision.tapped import TappedViT


class ViTKD(Refiner):
    """Mimics the shallower distilled layers, and at the last one generates masked patches from the others.

    Random patches of the projected student are replaced by a mask token, and a convolutional generator must recover
    the teacher's there: the loss is over masked patches (and the class token, which is never masked). Mask token and
    generator are trained with the student; in the SiNGER authors' comparison code they are left out of the optimiser.
    """

    draws = True

    def __init__(self, teacher: TappedViT, layers: Sequence[int], method: MethodConfig) -> None:
        super().__init__(teacher, layers, method)
        settings: VitkdConfig = method.own("vitkd")
        self.mask_ratio = settings.mask_ratio
        width = teacher.width
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.generator = nn.Sequential(
            nn.Conv2d(width, width, kernel_size=3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def distill(self, layer: int, student: torch.Tensor, target: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        if layer != self.layers[-1]:
            return distillation_loss(student, target)
        classes = student.shape[1] - grid[0] * grid[1]
        patches = student[:, classes:]
        masked = torch.rand(patches.shape[:2], device=patches.device) < self.mask_ratio
        kept = torch.where(masked[..., None], self.mask_token.to(patches.dtype), patches)
        made = self.generator(kept.mT.unflatten(2, grid)).flatten(2).mT
        counted = torch.cat([torch.ones_like(masked[:, :1]).expand(-1, classes), masked], dim=1)
        errors = (torch.cat([student[:, :classes], made], dim=1).float() - target.float()).square().mean(dim=-1)
        return (errors * counted).sum() / counted.sum().clamp_min(1)


REFINER = ViTKD
