"""SiNGER as the authors' code computes it (github.com/AIRLABkhu/SiNGER), where that differs from the paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn
from torch.nn import functional

from singer_ray.errors import UserError
from singer_ray.method.layers import map_official
from singer_ray.method.losses import Terms
from singer_ray.method.nullspace import mlp_matrix
from singer_ray.method.refiners.base import Replay
from singer_ray.method.refiners.singer.adapter import Singer

if TYPE_CHECKING:
    from singer_ray.config import MethodConfig
    from singer_ray.vision.tapped import Features, TappedViT


class OfficialSinger(Singer):
    """For comparison with published numbers. Differences from `Singer`:

    - Phi_down holds the first singular vectors of (fc2 fc1)^T whose singular value is below
      `method.official_threshold`, padded with random unit vectors, and Phi_up is its transpose;
    - targets are not scaled by layer; every loss is the mean over D;
    - L_outlier is in squared units of the features, over all outlier tokens of the batch at once;
    - L_info is the mean squared error of the next block's tokens, class token included, and at the last layer that of
      the Gram matrices of F^_l and of the F^ of the distilled layer before it;
    - the distillation gradient reaches the adapters, and layers map by `map_official`.
    """

    averages_layers = True
    scales_targets = False
    joint = True
    map_layers: ClassVar[Callable[[Sequence[int], int, int], tuple[int, ...]]] = staticmethod(map_official)

    @classmethod
    def check(cls, teacher: TappedViT, layers: Sequence[int], method: MethodConfig) -> None:
        if len(layers) < 2:
            raise UserError(
                f"method.variant official compares the last distilled layer with the one before, but teacher.layers is "
                f"{list(layers)}. Name two layers or more."
            )
        super().check(teacher, layers, method)

    def start(self, block: nn.Module, layer: int, method: MethodConfig) -> tuple[torch.Tensor, torch.Tensor]:
        left, values, _ = torch.linalg.svd(mlp_matrix(block).T, full_matrices=True)
        rows = left[:, values < method.official_threshold].T
        null = len(rows)
        if null < self.rank:
            padding = functional.normalize(torch.randn(self.rank - null, self.width), dim=-1)
            rows = torch.cat([rows, padding])
            self._notes.append(
                f"layer {layer}: {null} singular values are below method.official_threshold "
                f"{method.official_threshold:g}; {self.rank - null} random directions fill up rank {self.rank}"
            )
        rows = rows[: self.rank]
        return rows.T, rows

    def own_losses(self, refined: Mapping[int, torch.Tensor], features: Features, replay: Replay) -> Terms:
        outlier = [official_outlier_loss(refined[n][:, self.prefix :], self.gamma) for n in self.layers]
        info = [
            functional.mse_loss(replay(n + 1, refined[n], features).float(), features.tokens[n + 1].float())
            for n in self.layers[:-1]
        ]
        before, last = self.layers[-2:]
        last_gram, gram_before = (_gram(refined[n][:, self.prefix :]) for n in (last, before))
        info.append(functional.mse_loss(last_gram, gram_before))
        return {
            "outlier": (self.weights["outlier"], torch.stack(outlier).mean()),
            "info": (self.weights["info"], torch.stack(info).mean()),
        }


def official_outlier_loss(patches: torch.Tensor, gamma: float) -> torch.Tensor:
    """Mean of (norm - q)^2 over all patches of the batch above their own image's q, in float32; 0 without any."""
    norms = patches.float().norm(dim=-1)
    threshold = norms.detach().quantile(gamma, dim=1, keepdim=True)
    above = norms > threshold
    excess: torch.Tensor = torch.where(above, norms - threshold, 0.0)
    loss: torch.Tensor = excess.square().sum() / above.sum().clamp_min(1)
    return loss


def _gram(patches: torch.Tensor) -> torch.Tensor:
    unit = functional.normalize(patches.float(), dim=-1)
    gram: torch.Tensor = unit @ unit.mT
    return gram
