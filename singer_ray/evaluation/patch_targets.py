"""Pixel annotations brought to the grid of patches."""

from __future__ import annotations

import torch
from torch.nn import functional

IGNORE = 255
"""Mask value of pixels, and class of patches, that no score counts."""


def patch_classes(
    masks: torch.Tensor, grid: tuple[int, int], classes: int, covered: tuple[int, int] | None = None
) -> torch.Tensor:
    """The most frequent class of each patch, the lowest on a tie: int [batch, height, width] -> [batch, patches].

    Pixels outside 0 .. `classes` - 1 (IGNORE) have no vote; a patch that holds no other is IGNORE. `covered` is the
    height and width in pixels that the grid covers (see `TappedViT.covered`), the whole mask by default.
    """
    masks = _fitted(masks, covered, IGNORE)
    shares = torch.stack([functional.adaptive_avg_pool2d((masks == c).float(), grid) for c in range(classes)])
    most, winner = shares.max(dim=0)
    return winner.masked_fill(most == 0, IGNORE).flatten(1)


def patch_depth(depth: torch.Tensor, grid: tuple[int, int], covered: tuple[int, int] | None = None) -> torch.Tensor:
    """The mean depth of each patch: float32 [batch, height, width] -> [batch, patches]; `covered` as above."""
    depth = depth.float()
    mean = functional.adaptive_avg_pool2d(_fitted(depth, covered, 0), grid)
    if covered is not None and (covered[0] > depth.shape[-2] or covered[1] > depth.shape[-1]):
        mean = mean / functional.adaptive_avg_pool2d(_fitted(torch.ones_like(depth), covered, 0), grid)
    return mean.flatten(1)


def _fitted(planes: torch.Tensor, covered: tuple[int, int] | None, value: int) -> torch.Tensor:
    """Planes cut, or padded with `value`, at the right and at the bottom to what a grid covers."""
    if covered is None or covered == tuple(planes.shape[-2:]):
        return planes
    missing = [covered[1] - planes.shape[-1], covered[0] - planes.shape[-2]]
    return functional.pad(planes, (0, missing[0], 0, missing[1]), value=value)
