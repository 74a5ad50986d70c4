"""What kind of artifacts tokens have, where the answer is known."""

from __future__ import annotations

import pytest
import torch

from singer_ray.analysis.nature import LOCKED, Nature, nature_of, recurrence
from singer_ray.method.artifacts import outlier_mask, patch_norms

IMAGES, PLACES, DIM = 48, 100, 32


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def marks(share: float, fixed: float, reliability: float = 1.0, images: int = IMAGES) -> torch.Tensor:
    """bool [images, places]: `share` of all are marked; of those `fixed` at places that have one in `reliability`."""
    generator = draw()
    places = round(share * fixed / reliability * PLACES)
    mask = torch.rand(images, PLACES, generator=generator) < share * (1 - fixed)
    mask[:, :places] = torch.rand(images, places, generator=generator) < reliability
    return mask


@pytest.mark.parametrize("share", [0.05, 0.15, 0.5])
def test_artifacts_that_fall_anywhere_do_not_recur(share: float) -> None:
    assert recurrence(marks(share, fixed=0.0)) == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("share", [0.05, 0.15, 0.5])
def test_artifacts_at_the_same_places_of_every_image_recur(share: float) -> None:
    assert recurrence(marks(share, fixed=1.0)) == pytest.approx(1)


@pytest.mark.parametrize("part", [0.25, 0.5, 0.75])
def test_it_is_the_share_that_is_fixed_or_how_reliably_it_is(part: float) -> None:
    assert recurrence(marks(0.06, fixed=part)) == pytest.approx(part, abs=0.1)
    chance = 0.12
    assert recurrence(marks(chance, fixed=1.0, reliability=part)) == pytest.approx(
        (part - chance) / (1 - chance), abs=0.08
    )


@pytest.mark.parametrize("images", [4, 8])
def test_few_images_are_not_taken_for_fixed_places(images: int) -> None:
    found = recurrence(marks(0.1, fixed=0.0, images=images))
    assert found is not None
    assert found < LOCKED / 2


def test_without_a_second_image_or_a_mark_nothing_recurs() -> None:
    assert recurrence(torch.zeros(4, 9, dtype=torch.bool)) is None
    assert recurrence(torch.ones(4, 9, dtype=torch.bool)) is None
    assert recurrence(torch.eye(1, 9, dtype=torch.bool)) is None


def planted(mask: torch.Tensor, axes: torch.Tensor, size: float = 8.0) -> Nature:
    """Normal tokens of length about 1, those of `mask` with `size` times one of `axes` [dim, number] on top."""
    generator = draw(1)
    tokens = torch.randn(*mask.shape, DIM, generator=generator) / DIM**0.5
    which = torch.randint(axes.shape[1], mask.shape, generator=generator)
    tokens = tokens + size * mask[..., None] * axes.T[which]
    return nature_of(tokens, outlier_mask(patch_norms(tokens), 4.0))


def directions(number: int) -> torch.Tensor:
    axes: torch.Tensor = torch.linalg.qr(torch.randn(DIM, number, generator=draw(2))).Q
    return axes


@pytest.mark.parametrize(("fixed", "locked"), [(1.0, True), (0.0, False)])
@pytest.mark.parametrize("number", [1, 3])
def test_fixed_places_are_told_from_content(fixed: float, locked: bool, number: int) -> None:
    nature = planted(marks(0.15, fixed), directions(number))
    assert (nature.number, nature.locked, nature.blind) == (number, locked, False)
    assert nature.token_share == pytest.approx(0.15, abs=0.02)
    assert nature.artifact_channel is None
    assert nature.massive_channel is None


def test_a_direction_that_is_a_channel_is_named() -> None:
    nature = planted(marks(0.1, 0.0), torch.cat([torch.eye(DIM)[:, 7:8], directions(1)], dim=1))
    assert nature.number == 2
    assert nature.artifact_channel == 7
    assert nature.massive_channel is None


def test_a_channel_that_all_tokens_share_is_no_artifact() -> None:
    tokens = torch.randn(IMAGES, PLACES, DIM, generator=draw()) / DIM**0.5
    tokens[..., 5] += 6
    nature = nature_of(tokens, outlier_mask(patch_norms(tokens), 4.0))
    assert (nature.number, nature.artifact_channel, nature.massive_channel) == (0, None, 5)
    assert nature.recurrence is None


def test_artifacts_that_are_every_second_token_are_seen_although_no_norm_is_above_the_median() -> None:
    mask = marks(0.5, fixed=0.0)
    mask[:, : PLACES // 2] = True
    mask[:, PLACES // 2 :] = False
    nature = planted(mask, directions(2))
    assert nature.number == 2
    assert nature.token_share == pytest.approx(0.5)
    assert nature.energy_share > 0.9
    assert nature.locked


def test_where_most_tokens_are_artifacts_nothing_is_claimed_of_directions() -> None:
    nature = planted(marks(0.9, fixed=0.0), directions(2))
    assert nature.blind
    assert (nature.number, nature.energy_share, nature.channel) == (0, 0.0, None)


@pytest.mark.parametrize("number", [1, 4])
def test_the_cost_is_what_normal_tokens_have_along_the_directions(number: int) -> None:
    nature = planted(marks(0.1, fixed=0.0), directions(number))
    assert nature.content_share == pytest.approx(number / DIM, rel=0.3)


def test_long_tokens_without_a_common_direction_keep_their_places() -> None:
    mask = marks(0.02, fixed=1.0)
    lone = torch.nn.functional.normalize(torch.randn(IMAGES, PLACES, DIM, generator=draw(3)), dim=-1)
    tokens = torch.randn(IMAGES, PLACES, DIM, generator=draw(4)) / DIM**0.5 + 4.5 * mask[..., None] * lone
    nature = nature_of(tokens, outlier_mask(patch_norms(tokens), 4.0))
    assert nature.recurrence is not None
    assert nature.recurrence > LOCKED
