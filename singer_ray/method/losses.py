"""The terms of the loss, all in float32 whatever the autocast type (paper section 3.2)."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
from torch.nn import functional

OUTLIER_MARGIN = 1e-4
"""How far above the quantile, relative to it, a norm must be to count: rounding must not make outliers."""
Terms = Mapping[str, tuple[float, torch.Tensor]]
"""Name of a loss -> (weight, loss)."""


def distillation_loss(projected: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """One layer of L_KD: mean squared error over all tokens and channels, [batch, tokens, dim] both."""
    return functional.mse_loss(projected.float(), target.float())


def weighted_sum(terms: Terms) -> torch.Tensor:
    """The sum of weight x loss over at least one term, in their order."""
    return functools.reduce(torch.add, (weight * loss for weight, loss in terms.values()))


def token_distillation_loss(projected: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """`distillation_loss` before its mean over tokens: [batch, tokens, dim] both -> [batch, tokens]."""
    return functional.mse_loss(projected.float(), target.float(), reduction="none").mean(dim=2)


def outlier_loss(patches: torch.Tensor, gamma: float, median_norm: torch.Tensor | float) -> torch.Tensor:
    """One layer of L_outlier: mean of ((norm - q) / median_norm)^2 over an image's patches above q, then over images.

    `patches` is [batch, patches, dim]; q is the gamma-quantile of that image's patch norms, without gradient. An image
    whose norms tie at the top has no outlier and counts 0. Averaging by image first makes the loss of a batch the mean
    of the losses of its parts, so that several workers optimise exactly what one would.
    """
    norms = patches.float().norm(dim=-1)
    threshold = row_quantile(norms.detach(), gamma)
    outlier = norms > threshold * (1 + OUTLIER_MARGIN)
    excess = torch.where(outlier, (norms - threshold) / median_norm, 0.0)
    by_image: torch.Tensor = excess.square().sum(dim=1) / outlier.sum(dim=1).clamp_min(1)
    return by_image.mean()


def information_loss(refined: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
    """One layer of L_info: mean squared difference of the two cosine Gram matrices of [batch, patches, dim]."""
    return functional.mse_loss(cosine_gram(refined), cosine_gram(original))


def cosine_gram(patches: torch.Tensor) -> torch.Tensor:
    """Cosine similarity of every pair of patches, [batch, patches, dim] -> float32 [batch, patches, patches]."""
    with torch.autocast(patches.device.type, enabled=False):
        unit = directions(patches)
        return unit @ unit.mT


def directions(tokens: torch.Tensor) -> torch.Tensor:
    """Tokens [batch, tokens, dim] at length 1, in float32; a zero token stays zero."""
    tokens = tokens.float()
    norms = tokens.norm(dim=-1, keepdim=True)
    # The floor keeps the gradient of a (nearly) zero token bounded; it is far below any token that means something.
    floor = (1e-4 * norms.detach().mean()).clamp_min(1e-12)
    return tokens / torch.maximum(norms, floor)


def row_quantile(values: torch.Tensor, gamma: float) -> torch.Tensor:
    """The linearly interpolated gamma-quantile of each row: float32 [rows, n] -> [rows, 1].

    `torch.quantile` sorts whole rows; the top of each is enough here, and quicker.
    """
    position = gamma * (values.shape[1] - 1)
    below = int(position)
    top = values.topk(values.shape[1] - below, dim=1).values
    lower = top[:, -1:]
    upper = top[:, -2:-1] if top.shape[1] > 1 else lower
    return torch.lerp(lower, upper, position - below)
