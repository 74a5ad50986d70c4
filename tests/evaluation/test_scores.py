"""Scores, against figures worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from singer_ray.evaluation.patch_targets import IGNORE, patch_classes
from singer_ray.evaluation.probes import LinearProbe, choose_l2
from singer_ray.evaluation.scores import artifact_share, delta1, mean_iou, rmse, top1


def test_top1_is_the_share_of_right_images() -> None:
    assert top1(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 1, 1]), 3) == 0.5


def test_miou_is_over_the_whole_set_and_not_the_mean_of_batches() -> None:
    guess = torch.tensor([[0, 0, 0, 1], [0, 0, 0, 0]])
    target = torch.tensor([[0, 0, 1, 1], [1, 0, 0, 0]])
    # Class 0: 5 of 7. Class 1: 1 of 3. By image: (2/3 + 1/2) / 2 and (3/4 + 0) / 2, whose mean is another number.
    assert mean_iou(guess, target, 2) == pytest.approx((5 / 7 + 1 / 3) / 2)
    by_image = sum(mean_iou(g[None], t[None], 2) for g, t in zip(guess, target)) / 2
    assert by_image == pytest.approx((7 / 12 + 3 / 8) / 2)


def test_ignored_places_count_for_no_class() -> None:
    guess = torch.tensor([0, 0, 1, 1, 1, 0])
    target = torch.tensor([0, 0, 1, 0, IGNORE, IGNORE])
    assert mean_iou(guess, target, 2) == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_a_class_that_never_occurs_is_left_out_of_miou_unless_it_is_guessed() -> None:
    target = torch.tensor([0, 0, 1, 1])
    assert mean_iou(target, target, 5) == 1.0
    assert mean_iou(torch.tensor([0, 0, 1, 4]), target, 5) == pytest.approx((1 + 1 / 2 + 0) / 3)


def test_rmse_is_over_all_places() -> None:
    assert rmse(torch.tensor([[0.0, 0.0], [3.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 4.0]])) == pytest.approx(2.5)


def test_delta1_counts_depths_within_a_quarter() -> None:
    target = torch.tensor([1.0, 1.0, 1.0, 1.0, 2.0, 0.0])
    guess = torch.tensor([1.2, 1.3, 0.81, 0.79, -2.0, 5.0])
    assert delta1(guess, target) == pytest.approx(2 / 5)  # the last place has no depth and is not counted
    assert math.isnan(delta1(guess[-1:], target[-1:]))


def test_artifacts_are_counted_against_the_median_of_their_own_image() -> None:
    norms = torch.tensor([[1.0, 1.0, 1.0, 5.0], [10.0, 10.0, 10.0, 39.0]])
    assert artifact_share(norms, 4.0) == 1 / 8
    assert artifact_share(norms, 3.0) == 2 / 8


def test_a_patch_without_a_known_pixel_is_ignored_and_others_take_the_known_majority() -> None:
    mask = torch.tensor([[[IGNORE, IGNORE, 1, IGNORE], [IGNORE, IGNORE, IGNORE, IGNORE]]])
    assert patch_classes(mask, (1, 2), 3).tolist() == [[IGNORE, 1]]


def test_the_regulariser_with_the_best_validation_score_wins_the_strongest_on_a_tie() -> None:
    fitted: list[float] = []

    def fit(l2: float) -> LinearProbe:
        fitted.append(l2)
        one = torch.tensor([l2])
        return LinearProbe(one, one, one, one)

    scores = {1e-1: 0.5, 1e-2: 0.7, 1e-3: 0.7, 1e-4: 0.2}
    probe, l2 = choose_l2(fit, lambda probe: scores[round(float(probe.bias), 6)], (1e-4, 1e-2, 1e-1, 1e-3))
    assert l2 == 1e-2
    assert float(probe.bias) == pytest.approx(1e-2)
    assert sorted(fitted) == sorted(scores)
