"""P_l: what takes the student's features to the teacher's width at one distilled layer."""

from __future__ import annotations

import torch
from torch import nn


class OrthogonalLinear(nn.Linear):
    """A linear layer whose weight has orthonormal columns, or rows where it makes features narrower.

    So distances between the student's tokens are those between their projections, and a projection cannot learn what
    the student should (VkD, arXiv 2403.06213). The optimiser moves the weight freely; `retract` brings it back. That is
    a QR decomposition a step: torch's parametrizations, which are differentiated through, take a hundred times as long.
    """

    def __init__(self, width: int, teacher_width: int) -> None:
        super().__init__(width, teacher_width)
        self.retract()

    @torch.no_grad()
    def retract(self) -> None:
        """Replaces the weight by the orthonormal factor of its QR decomposition, that with a positive diagonal of R."""
        tall = self.out_features >= self.in_features
        columns, triangle = torch.linalg.qr(self.weight if tall else self.weight.mT)
        signs = triangle.diagonal().sign()
        columns = columns * torch.where(signs == 0, 1.0, signs)
        self.weight.copy_(columns if tall else columns.mT)


def make_projection(kind: str, width: int, teacher_width: int) -> nn.Module:
    """Student tokens [..., width] -> [..., teacher_width], with a bias in every layer.

    `linear`; `mlp`: two linear layers with GELU between them, the hidden one of the teacher's width; `orthogonal`: see
    `OrthogonalLinear`.
    """
    if kind == "mlp":
        return nn.Sequential(nn.Linear(width, teacher_width), nn.GELU(), nn.Linear(teacher_width, teacher_width))
    return OrthogonalLinear(width, teacher_width) if kind == "orthogonal" else nn.Linear(width, teacher_width)
