"""What is done to a refined target before the student is compared with it: `method.target`.

Every kind leaves elements of a variance of about 1, so that layers weigh alike and the weights of other losses keep
their meaning. `plain` needs the factor sqrt(dim) / median norm for that, which `Distiller` applies before any of them;
`layernorm` and `standardize` do not depend on it, except that their epsilons then mean the same in every layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from singer_ray.method.processes import mean_over_processes

EPSILON = 1e-6
"""Added to variances: a channel that varies by far less than a thousandth of the layer's size stays small."""


class Targets(nn.Module):
    """Base class, and the kind `plain`: targets as they are.

    Args:
        layers: the distilled teacher layers.
        width: the teacher's.
        classes: how many class tokens come before the patches, 0 or 1.
        momentum: `method.standardize.momentum`.
    """

    measured: ClassVar[bool] = False
    """Whether it must see targets, by `measure`, before the first step."""

    def __init__(self, layers: Sequence[int], width: int, classes: int, momentum: float) -> None:
        super().__init__()

    def measure(self, layer: int, target: torch.Tensor) -> None:
        """Shown once the scaled targets of the calibration images, as `forward` takes them."""

    def forward(self, layer: int, target: torch.Tensor) -> torch.Tensor:
        """Scaled targets at `layer` -> what is compared: [batch, class token? + patches, dim], both."""
        return target

    def undone(self, layer: int, patches: torch.Tensor) -> torch.Tensor:
        """Patches as compared -> in the units of scaled targets; lengths that layernorm took away stay away."""
        return patches


class NormalizedTargets(Targets):
    """LayerNorm without affine on every token (feature distillation, arXiv 2205.14141)."""

    def forward(self, layer: int, target: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(target.float(), target.shape[-1:], eps=EPSILON)


class StandardizedTargets(Targets):
    """Each channel with mean 0 and variance 1, by running statistics of each layer, class token and patches apart.

    They start from the calibration images, once the refiner has been fitted, and in training mode follow the batches by
    an exponential moving average: a batch is standardised by those before it, and then taken in. They are buffers,
    without gradient, and equal in all processes, which average what they see.
    """

    measured = True

    def __init__(self, layers: Sequence[int], width: int, classes: int, momentum: float) -> None:
        super().__init__(layers, width, classes, momentum)
        self.momentum = momentum
        self.moments = nn.ModuleDict({str(n): RunningMoments(width, classes) for n in layers})

    def measure(self, layer: int, target: torch.Tensor) -> None:
        moments = self._moments(layer)
        for _ in range(2):  # the variance is that about the mean, so the mean must be known
            moments.follow(*moments.deviations(target), 1.0)

    def forward(self, layer: int, target: torch.Tensor) -> torch.Tensor:
        moments = self._moments(layer)
        standardized = (target.float() - moments.by_token(moments.mean, target)) / moments.deviation(target)
        if self.training and self.momentum:
            batch = mean_over_processes(torch.stack(moments.deviations(target)))
            moments.follow(batch[0], batch[1], self.momentum)
        return standardized

    def undone(self, layer: int, patches: torch.Tensor) -> torch.Tensor:
        moments = self._moments(layer)
        return patches * (moments.variance[-1] + EPSILON).sqrt() + moments.mean[-1]

    def _moments(self, layer: int) -> RunningMoments:
        moments = self.moments[str(layer)]
        assert isinstance(moments, RunningMoments)
        return moments


class RunningMoments(nn.Module):
    """Running mean and variance of each channel, [classes + 1, dim]: of the class token, if any, and of the patches."""

    mean: torch.Tensor
    variance: torch.Tensor

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.register_buffer("mean", torch.zeros(classes + 1, width))
        self.register_buffer("variance", torch.ones(classes + 1, width))

    def by_token(self, values: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Values of class token and patches, [classes + 1, dim], for each of the tokens: [tokens, dim]."""
        patches = values[-1:].expand(tokens.shape[1] - self.classes, -1)
        return torch.cat([values[: self.classes], patches])

    def deviation(self, tokens: torch.Tensor) -> torch.Tensor:
        """The standard deviation for each of the tokens: [tokens, dim]."""
        return self.by_token((self.variance + EPSILON).sqrt(), tokens)

    @torch.no_grad()
    def deviations(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and mean square of a batch's differences from the running mean, [classes + 1, dim] both."""
        apart = tokens.float() - self.by_token(self.mean, tokens)
        groups = apart.split([self.classes, apart.shape[1] - self.classes], dim=1) if self.classes else (apart,)
        first = torch.stack([group.mean(dim=(0, 1)) for group in groups])
        second = torch.stack([group.square().mean(dim=(0, 1)) for group in groups])
        return first, second

    @torch.no_grad()
    def follow(self, first: torch.Tensor, second: torch.Tensor, share: float) -> None:
        """Takes in a batch, by its `deviations`, with that share: the moments of the mixture of old and new."""
        self.mean += share * first
        mixed = (1 - share) * self.variance + share * second - (share * first).square()
        self.variance.copy_(mixed.clamp_min(0))


TARGETS: dict[str, type[Targets]] = {
    "plain": Targets,
    "layernorm": NormalizedTargets,
    "standardize": StandardizedTargets,
}
"""By the name that `method.target` takes."""
