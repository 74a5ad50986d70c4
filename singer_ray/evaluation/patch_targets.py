"""Pixel annotations brought to the grid of patches."""

from __future__ import annotations

import torch
from torch.nn import functional


def patch_classes(masks: torch.Tensor, grid: tuple[int, int], classes: int) -> torch.Tensor:
    """The most frequent class of each patch, the lowest on a tie: int [batch, height, width] -> [batch, patches]."""
    shares = torch.stack([functional.adaptive_avg_pool2d((masks == c).float(), grid) for c in range(classes)])
    return shares.argmax(dim=0).flatten(1)


def patch_depth(depth: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """The mean depth of each patch: float32 [batch, height, width] -> [batch, patches]."""
    return functional.adaptive_avg_pool2d(depth.float(), grid).flatten(1)
