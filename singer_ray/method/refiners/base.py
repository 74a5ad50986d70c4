"""What a refiner is: a way to clean the teacher's features before they are distilled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from singer_ray.config import MethodConfig
    from singer_ray.vision.tapped import TappedViT, Taps

Replay = Callable[[int, torch.Tensor, "Taps"], torch.Tensor]
"""Runs teacher block `layer` on other tokens: (layer, tokens, taps of that pass) -> tokens."""


class Refiner(nn.Module):
    """Base class: leaves the features as they are and has no loss of its own.

    A refiner is one class in one file: `forward`, and where it learns, `own_losses`. It is registered in
    `method/refiners/__init__.py` under the name that `method.refiner` takes.
    """

    def __init__(self, teacher: TappedViT, layers: Sequence[int], method: MethodConfig) -> None:
        super().__init__()
        self.layers, self.prefix = tuple(layers), teacher.prefix

    @classmethod
    def extra_layers(cls, layers: Sequence[int], depth: int) -> tuple[int, ...]:
        """Teacher layers to tap besides the distilled ones."""
        return ()

    @property
    def learns(self) -> bool:
        """Whether there is anything to fit."""
        return any(p.requires_grad for p in self.parameters())

    def calibrate(self, median_norms: Mapping[int, float]) -> None:
        """Told once, before the first step, the median patch norm of the teacher at each distilled layer."""

    def forward(self, layer: int, tokens: torch.Tensor) -> torch.Tensor:
        """F_l -> F^_l, [batch, prefix + patches, dim]; prefix tokens stay as they are."""
        return tokens

    def own_losses(
        self, refined: Mapping[int, torch.Tensor], taps: Taps, replay: Replay
    ) -> dict[str, tuple[float, torch.Tensor]]:
        """Name -> (weight, loss) of the terms that fit the refiner itself."""
        return {}

    def target(self, original: torch.Tensor, refined: torch.Tensor) -> torch.Tensor:
        """What the student is shown, given F_l and F^_l."""
        return refined
