"""SiNGER: a low-rank adapter guided by the next block's left-nullspace (arXiv 2509.20986, section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from singer_ray.errors import UserError
from singer_ray.method.losses import information_loss, outlier_loss
from singer_ray.method.nullspace import linearized_block, null_directions
from singer_ray.method.refiners.base import Refiner, Replay

if TYPE_CHECKING:
    from singer_ray.config import MethodConfig
    from singer_ray.vision.tapped import TappedViT, Taps


class SingerAdapter(nn.Module):
    """Delta(F) = (F Phi_down) Phi_up; Phi_down [dim, rank] from the null space, Phi_up [rank, dim] zero at first."""

    def __init__(self, block: nn.Module, rank: int) -> None:
        super().__init__()
        down = null_directions(linearized_block(block), rank)
        self.phi_down = nn.Parameter(down)
        self.phi_up = nn.Parameter(torch.zeros_like(down.T))

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return (patches @ self.phi_down) @ self.phi_up


class Singer(Refiner):
    """F^_l = F_l + Delta_l(F_l) on patch tokens (equation 3), fitted by L_outlier and L_info (equations 6 to 8).

    The adapter is fitted at full strength; `strength` scales what the student is shown: F_l + strength * Delta_l.
    """

    def __init__(self, teacher: TappedViT, layers: Sequence[int], method: MethodConfig) -> None:
        super().__init__(teacher, layers, method)
        if method.rank > teacher.width:
            raise UserError(
                f"method.rank {method.rank} is above the teacher's width {teacher.width}: there are only "
                f"{teacher.width} directions. Allowed: 1 to {teacher.width}; 8 to 64 is usual."
            )
        self.strength, self.gamma = method.strength, method.outlier_quantile
        self.weights = {"outlier": method.loss.outlier, "info": method.loss.info}
        self.depth = teacher.depth
        # The last block has no next one; its own stands in, as in the official code.
        self.adapters = nn.ModuleDict(
            {str(n): SingerAdapter(teacher.blocks[min(n + 1, teacher.depth - 1)], method.rank) for n in self.layers}
        )
        self.median_norms = dict.fromkeys(self.layers, 1.0)
        if not any(self.weights.values()):
            self.requires_grad_(False)

    @classmethod
    def extra_layers(cls, layers: Sequence[int], depth: int) -> tuple[int, ...]:
        """The next block's own output is the reference of the information loss."""
        return tuple(n + 1 for n in layers if n + 1 < depth)

    def calibrate(self, median_norms: Mapping[int, float]) -> None:
        self.median_norms = {n: median_norms[n] for n in self.layers}

    def forward(self, layer: int, tokens: torch.Tensor) -> torch.Tensor:
        prefix, patches = tokens[:, : self.prefix], tokens[:, self.prefix :]
        return torch.cat([prefix, patches + self.adapters[str(layer)](patches)], dim=1)

    def own_losses(
        self, refined: Mapping[int, torch.Tensor], taps: Taps, replay: Replay
    ) -> dict[str, tuple[float, torch.Tensor]]:
        outlier, info = [], []
        for layer in self.layers:
            hat = refined[layer]
            outlier.append(outlier_loss(hat[:, self.prefix :], self.gamma, self.median_norms[layer]))
            if layer + 1 < self.depth:
                after, reference = replay(layer + 1, hat, taps), taps.tokens[layer + 1]
            else:
                after, reference = hat, taps.tokens[layer]
            info.append(information_loss(after[:, self.prefix :], reference[:, self.prefix :]))
        return {
            "outlier": (self.weights["outlier"], torch.stack(outlier).sum()),
            "info": (self.weights["info"], torch.stack(info).sum()),
        }

    def target(self, original: torch.Tensor, refined: torch.Tensor) -> torch.Tensor:
        return torch.lerp(original, refined, self.strength)
