"""The verdict says what the figures say."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from singer_ray.analysis.artifacts import Directions, LayerReport
from singer_ray.analysis.gradient_bias import GradientBias
from singer_ray.analysis.verdict import Verdict, judge, starting_rank

LAYERS = (3, 5)


def report(size: float, count: int = 3) -> LayerReport:
    """One token in twenty has `size` x the norm of the others."""
    norms = torch.ones(4, 20)
    norms[:, 0] = size
    outliers = norms > 4
    directions = Directions(torch.eye(2), torch.ones(2), {1: 1.0}, {0.9: count, 0.95: count + 1}, {})
    return LayerReport(norms, outliers, (4, 5), directions if outliers.any() else None)


def bias(share: float) -> GradientBias:
    return GradientBias(share, share, 0.0, {3: share, 5: share})


def verdict(reports: Mapping[int, LayerReport], **shares: float) -> Verdict:
    track = [(0, {name: bias(share) for name, share in shares.items()})]
    return judge("x", reports, LAYERS, track, k=4.0, width=64)


def test_artifacts_that_a_refiner_removes() -> None:
    found = verdict({3: report(20), 5: report(10)}, none=0.8, singer=0.2)
    assert (found.artifacts, found.biased, found.remedy, found.rank) == (True, True, True, 8)
    assert "has artifacts: at block 3, 5.0 % of the patch tokens" in found.text
    assert "from 80 % to 20 %, so it is worth trying" in found.text
    assert "3-4 at block 3, 3-4 at block 5" in found.text
    assert "Start with --method.rank 8." in found.text


def test_a_refiner_that_leaves_them_is_no_remedy() -> None:
    found = verdict({3: report(20), 5: report(10)}, none=0.8, singer=0.78)
    assert found.remedy is False
    assert "no remedy" in found.text
    assert "worth trying" not in found.text


def test_without_a_refiner_no_remedy_was_tried() -> None:
    found = verdict({3: report(20), 5: report(10)}, none=0.8)
    assert found.remedy is None
    assert "No refiner was tried" in found.text


def test_artifacts_without_weight_do_not_bias() -> None:
    found = verdict({3: report(20), 5: report(10)}, none=0.1, singer=0.1)
    assert (found.artifacts, found.biased, found.remedy) == (True, False, None)
    assert "They do not bias distillation here" in found.text
    assert "--method.rank" not in found.text


@pytest.mark.parametrize("size", [1.3, 4.0])
def test_a_teacher_without_artifacts_is_told_so(size: float) -> None:
    found = verdict({3: report(size), 5: report(size)}, none=0.0, singer=0.0)
    assert (found.artifacts, found.biased, found.remedy, found.rank) == (False, False, None, None)
    assert "no artifacts" in found.text
    assert "refinement will not help" in found.text


def test_artifacts_at_other_layers_are_mentioned() -> None:
    found = verdict({2: report(30), 3: report(1.2), 5: report(1.2)}, none=0.0)
    assert not found.artifacts
    assert "Other layers do have artifacts: block 2." in found.text


@pytest.mark.parametrize(("count", "rank"), [(1, 8), (3, 8), (4, 16), (15, 32), (60, 64)])
def test_the_rank_leaves_room(count: int, rank: int) -> None:
    assert starting_rank([report(20, count), report(20, 1)], width=64) == rank


def test_no_estimate_no_rank() -> None:
    assert starting_rank([report(1.0)], width=64) is None
