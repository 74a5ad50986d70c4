"""Defective patches are filled in from those around them."""

from __future__ import annotations

import math
from typing import Any

import torch

from singer_ray.config import MethodConfig
from singer_ray.method.refiners.neighbours.refiner import Neighbours
from singer_ray.vision.tapped import TappedViT
from tests.method.planted import vit

GRID = (3, 4)


def refiner(grid: tuple[int, int] = GRID, **settings: Any) -> Neighbours:
    method = MethodConfig.model_validate({"refiner": "neighbours", "neighbours": settings})
    made = Neighbours(TappedViT(vit(), (1, 3)), (1, 3), method)
    made.lay_out(grid)
    return made


def tokens(seed: int = 0, grid: tuple[int, int] = GRID) -> torch.Tensor:
    """[2, 1 + patches, 32], all patches about as long."""
    return torch.randn(2, 1 + grid[0] * grid[1], 32, generator=torch.Generator().manual_seed(seed))


def test_a_defective_patch_becomes_the_gaussian_mean_of_the_normal_ones_and_others_stay() -> None:
    given = tokens()
    given[0, 1 + 5] *= 30  # row 1, column 1
    given[0, 1 + 6] *= 30  # row 1, column 2
    refined = refiner(sigma=0.8)(1, given)
    changed = (refined != given).any(dim=-1)
    assert changed.nonzero().tolist() == [[0, 6], [0, 7]]
    total, sum_of = 0.0, torch.zeros(32)
    for row in range(3):
        for column in range(4):
            if (row, column) in ((1, 1), (1, 2)):
                continue
            weight = math.exp(-((row - 1) ** 2 + (column - 1) ** 2) / (2 * 0.8**2))
            total, sum_of = total + weight, sum_of + weight * given[0, 1 + 4 * row + column]
    assert torch.allclose(refined[0, 6], sum_of / total, atol=1e-5)


def test_the_rule_is_a_multiple_of_the_median_of_the_image() -> None:
    given = torch.ones(1, 13, 32)
    given[0, 3] *= 1.9
    assert torch.equal(refiner(ratio=2.0)(1, given), given)
    assert torch.allclose(refiner(ratio=1.8)(1, given), torch.ones(1, 13, 32))
    assert torch.allclose(refiner(ratio=1.8)(1, 5 * given), torch.full((1, 13, 32), 5.0))


def test_an_image_without_a_normal_patch_stays_as_it_is_and_others_do_not() -> None:
    given = tokens()
    given[0, 1:] = given[0, 1:2]  # all of one length: every one is above half the median
    given[1, 1] *= 30
    refined = refiner(ratio=0.5)(1, given)
    assert torch.equal(refined[0], given[0])
    given[1, 2:7] *= 0.01
    refined = refiner(ratio=1.5)(1, given)
    assert torch.equal(refined[0], given[0])
    assert not torch.equal(refined[1], given[1])


def test_where_all_neighbours_are_defective_those_further_away_count_alike() -> None:
    grid = (1, 40)
    given = tokens(3, grid)[:1]
    given[:, 1:20] *= 50
    refined = refiner(grid, sigma=0.5)(1, given)
    assert torch.isfinite(refined).all()
    assert torch.allclose(refined[0, 1], given[0, 20:].mean(dim=0), atol=1e-2)  # 19 patches away
    assert torch.allclose(refined[0, 19], given[0, 20], atol=0.1)  # next to a normal one


def test_it_follows_the_picture_when_that_is_mirrored_but_not_when_patches_are_shuffled() -> None:
    given = tokens(4)
    given[:, 1 + 5] *= 30
    made = refiner()
    mirrored = torch.arange(12).reshape(GRID).flip(1).flatten()
    shuffled = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    for order, alike in ((mirrored, True), (shuffled, False)):
        places = torch.cat([torch.zeros(1, dtype=torch.long), 1 + order])
        assert torch.allclose(made(1, given[:, places]), made(1, given)[:, places], atol=1e-5) == alike
