"""How far the student's tokens are from their targets: `method.distance`, of which L_KD is the mean over tokens.

All in float32 whatever the autocast type; student and target are [batch, tokens, dim], a distance [batch, tokens].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from singer_ray.method.losses import directions, distillation_loss, token_distillation_loss

if TYPE_CHECKING:
    from singer_ray.config import MethodConfig

COSINE_SHARE = 0.9
"""Of `mixed`; the rest is smooth-L1 (AM-RADIO, arXiv 2312.06709)."""


@dataclass(frozen=True)
class Comparison:
    """The plain L_KD of one layer: a distance of each token, and its mean over tokens."""

    distance: str = "mse"
    """`method.distance`."""
    beta: float = 2.0
    """`method.smooth_l1.beta`."""
    class_token: float = 1.0
    """Weight of the class token, where that of each patch is 1 (`method.loss.class_token`)."""

    @classmethod
    def of(cls, method: MethodConfig) -> Comparison:
        return cls(method.distance, method.smooth_l1.beta, method.loss.class_token)

    def loss(self, student: torch.Tensor, target: torch.Tensor, patches: int) -> torch.Tensor:
        """The mean over tokens, of which the last `patches` are patches and the first may be a class token."""
        if self.distance == "mse" and self.class_token == 1:
            return distillation_loss(student, target)
        return self.by_token(student, target, patches).mean()

    def by_token(self, student: torch.Tensor, target: torch.Tensor, patches: int) -> torch.Tensor:
        """The same before its mean: each token's distance, times its weight over the mean weight."""
        distances = self._distances(student, target)
        classes = distances.shape[1] - patches
        if self.class_token == 1 or not classes:
            return distances
        weights = torch.ones(distances.shape[1], device=distances.device)
        weights[:classes] = self.class_token
        return distances * (weights / weights.mean())

    def _distances(self, student: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if self.distance == "mse":
            return token_distillation_loss(student, target)
        if self.distance == "smooth_l1":
            return smooth_l1(student, target, self.beta)
        if self.distance == "cosine":
            return cosine(student, target)
        return COSINE_SHARE * cosine(student, target) + (1 - COSINE_SHARE) * smooth_l1(student, target, self.beta)


def smooth_l1(student: torch.Tensor, target: torch.Tensor, beta: float) -> torch.Tensor:
    """Mean over channels of d^2 / (2 beta) where |d| < beta, else |d| - beta / 2 (arXiv 2205.14141)."""
    return functional.smooth_l1_loss(student.float(), target.float(), beta=beta, reduction="none").mean(dim=2)


def cosine(student: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 - cosine similarity; 1 at a zero token."""
    return 1 - (directions(student) * directions(target)).sum(dim=2)
