"""Pixel annotations brought to the grid of patches."""

from __future__ import annotations

import torch
from torch.nn import functional

IGNORE = 255
"""Mask value of pixels, and class of patches, that no score counts."""


def patch_classes(masks: torch.Tensor, grid: tuple[int, int], classes: int) -> torch.Tensor:
    """The most frequent class of each patch, the lowest on a tie: int [batch, height, width] -> [batch, patches].

    Pixels outside 0 .. `classes` - 1 (IGNORE) have no vote; a patch that holds no other is IGNORE.
    """
    shares = torch.stack([functional.adaptive_avg_pool2d((masks == c).float(), grid) for c in range(classes)])
    most, winner = shares.max(dim=0)
    return winner.masked_fill(most == 0, IGNORE).flatten(1)


def patch_depth(depth: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """The mean depth of each patch: float32 [batch, height, width] -> [batch, patches]."""
    return functional.adaptive_avg_pool2d(depth.float(), grid).flatten(1)
