"""How much artifacts weigh in a set of tokens."""

from __future__ import annotations

import torch

from singer_ray.method.losses import cosine_gram


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


def gram_cosine(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Cosine between the two patch Gram matrices of each image: [batch, patches, dim] twice -> [batch]."""
    return torch.cosine_similarity(cosine_gram(first).flatten(1), cosine_gram(second).flatten(1), dim=1)
