"""What a refiner is: a way to clean the teacher's features before they are distilled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from singer_ray.method.layers import map_by_depth
from singer_ray.method.losses import Terms, distillation_loss

if TYPE_CHECKING:
    from singer_ray.config import MethodConfig
    from singer_ray.vision.tapped import Features, TappedViT

Replay = Callable[[int, torch.Tensor, "Features"], torch.Tensor]
"""Runs teacher block `layer` on other tokens: (layer, tokens, features of that pass) -> tokens."""


class Refiner(nn.Module):
    """Base class: leaves the features as they are and has no loss of its own (plain feature distillation, FitNet).

    A subclass overrides `forward` and, where it learns, `own_losses`; it lives in a folder of this package, whose name
    `method.refiner` takes (see README.md).
    """

    averages_layers: ClassVar[bool] = False
    """Whether L_KD is the mean over D instead of the sum."""
    joint: ClassVar[bool] = False
    """Whether it trains with the student only: no pre-fit, and the distillation gradient reaches it."""
    draws: ClassVar[bool] = False
    """Whether a training step draws random numbers."""
    scales_targets: ClassVar[bool] = True
    """Whether targets are multiplied by sqrt(dim) / median norm of their layer, so that layers weigh alike."""
    map_layers: ClassVar[Callable[[Sequence[int], int, int], tuple[int, ...]]] = staticmethod(map_by_depth)
    """(teacher layers, teacher depth, student depth) -> student layers."""

    def __init__(self, teacher: TappedViT, layers: Sequence[int], method: MethodConfig) -> None:
        super().__init__()
        self.check(teacher, layers, method)
        self.layers, self.prefix, self.width = tuple(layers), teacher.prefix, teacher.width
        self.median_norms = dict.fromkeys(self.layers, 1.0)

    @classmethod
    def extra_layers(cls, layers: Sequence[int], depth: int) -> tuple[int, ...]:
        """Teacher layers to tap besides the distilled ones."""
        return ()

    @classmethod
    def check(cls, teacher: TappedViT, layers: Sequence[int], method: MethodConfig) -> None:
        """Raises UserError when it cannot refine `layers` of this teacher; asks for shapes alone, not for weights."""

    @property
    def learns(self) -> bool:
        """Whether it has losses of its own to be fitted by."""
        return False

    def calibrate(self, median_norms: Mapping[int, float]) -> None:
        """Told once, before the first step, the median patch norm of the teacher at each distilled layer."""
        self.median_norms = {n: median_norms[n] for n in self.layers}

    def observe(self, features: Features, replay: Replay, seed: int) -> None:
        """Shown one batch of the teacher's features before a fresh start; not when a run is resumed."""

    def settle(self) -> None:
        """Told once, after the pre-fit and before the student's first step, also of a run that is resumed."""

    def notes(self) -> list[str]:
        """What a user should know about the start, a line each."""
        return []

    def refine(self, features: Features, replay: Replay) -> tuple[dict[int, torch.Tensor], Terms]:
        """F^_l for every l in D, and the terms that fit the refiner; none where it does not learn."""
        refined = {n: self(n, features.tokens[n]) for n in self.layers}
        return refined, self.own_losses(refined, features, replay) if self.learns else {}

    def forward(self, layer: int, tokens: torch.Tensor) -> torch.Tensor:
        """F_l -> F^_l, [batch, prefix + patches, dim]; prefix tokens stay as they are."""
        return tokens

    def own_losses(self, refined: Mapping[int, torch.Tensor], features: Features, replay: Replay) -> Terms:
        """Name -> (weight, loss) of the terms that fit the refiner itself."""
        return {}

    def target(self, layer: int, original: torch.Tensor, refined: torch.Tensor) -> torch.Tensor:
        """What the student learns at layer l, unscaled, given F_l and F^_l."""
        return refined

    def distill(self, layer: int, projected: torch.Tensor, target: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """One layer of L_KD from student tokens P_l(F^S_l) and scaled target, [batch, class token? + patches, dim]."""
        return distillation_loss(projected, target)


class PatchwiseRefiner(Refiner):
    """Changes each image's patches by a fixed rule, `refine_patches`, and learns nothing."""

    def refine(self, features: Features, replay: Replay) -> tuple[dict[int, torch.Tensor], Terms]:
        """F^_l for every l in D, and the terms that fit the refiner; none where it does not learn."""
        refined = {n: self(n, features.tokens[n]) for n in self.layers}
        return refined, self.own_losses(refined, features, replay) if self.learns else {}

    def forward(self, layer: int, tokens: torch.Tensor) -> torch.Tensor:
        refined = self.refine_patches(tokens[:, self.prefix :], self.median_norms[layer])
        return torch.cat([tokens[:, : self.prefix], refined], dim=1)

    def refine_patches(self, patches: torch.Tensor, median_norm: float) -> torch.Tensor:
        """[batch, patches, dim] -> the same shape; `median_norm` is the teacher's at this layer."""
        raise NotImplementedError


def shorten(patches: torch.Tensor, norms: torch.Tensor, most: torch.Tensor) -> torch.Tensor:
    """Patches [batch, patches, dim] of `norms` [batch, patches], cut to `most` [batch, 1]; directions stay."""
    factors = (most / norms.clamp_min(1e-12)).clamp_max(1.0)
    return (patches.float() * factors[..., None]).to(patches.dtype)
