"""How much artifacts weigh in a set of tokens."""

from __future__ import annotations

import torch

from singer_ray.method.losses import cosine_gram

NORMAL = 1.5
"""The largest over median norm of an image without artifacts is about this."""


def patch_norms(patches: torch.Tensor) -> torch.Tensor:
    """Euclidean norm of each token in float32: [batch, patches, dim] -> [batch, patches]."""
    norms: torch.Tensor = patches.float().norm(dim=-1)
    return norms


def median_norm(norms: torch.Tensor) -> float:
    """The median over all tokens of all images."""
    return float(norms.flatten().median())


def max_median_ratio(norms: torch.Tensor) -> torch.Tensor:
    """Largest norm over median norm of each image: [batch, patches] -> [batch]. About 1.5 without artifacts."""
    return norms.amax(dim=1) / norms.median(dim=1).values.clamp_min(1e-12)


def relative_norms(norms: torch.Tensor) -> torch.Tensor:
    """Norms over the median of their image: [images, patches], both."""
    return norms / norms.median(dim=1, keepdim=True).values.clamp_min(1e-12)


def normal_mask(norms: torch.Tensor) -> torch.Tensor:
    """Tokens that no artifact touches: at most 1.5 x the median norm of their image. [images, patches] -> bool.

    Between these and the outliers lie tokens that have a part of an artifact's direction.
    """
    return norms <= NORMAL * norms.median(dim=1, keepdim=True).values


def outlier_mask(norms: torch.Tensor, k: float) -> torch.Tensor:
    """Tokens whose norm is above `k` times the median norm of their image: [batch, patches] -> bool [batch, patches].

    Unlike a quantile this finds nothing where there is nothing, and unlike a z-score it is not misled by the outliers.
    """
    return norms > k * norms.median(dim=1, keepdim=True).values


def gram_cosine(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Cosine between the two patch Gram matrices of each image: [batch, patches, dim] twice -> [batch]."""
    return torch.cosine_similarity(cosine_gram(first).flatten(1), cosine_gram(second).flatten(1), dim=1)
