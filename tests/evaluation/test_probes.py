"""The probes, on data with known answers."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from singer_ray.evaluation.patch_targets import patch_classes, patch_depth
from singer_ray.evaluation.probes import fit_classifier, fit_regression, knn_predict


def blobs(count: int, spread: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    centres = torch.tensor([[0.0, 5, 0, 0], [5, 0, 0, 0], [0, 0, 5, 0]])
    return centres[labels] * 7 + 100 + spread * torch.randn(count, 4, generator=generator), labels


def test_separable_classes_are_learned_whatever_the_scale() -> None:
    features, labels = blobs(200, 1.0, 0)
    probe = fit_classifier(features, labels, 3, l2=1e-4)
    other, truth = blobs(100, 1.0, 1)
    assert (probe(other).argmax(dim=1) == truth).all()


def test_the_classifier_is_the_regularised_optimum() -> None:
    features, labels = blobs(300, 12.0, 0)
    l2 = 1e-2
    probe = fit_classifier(features, labels, 3, l2)
    x = ((features - features.mean(0)) / features.std(0)).numpy()
    reference = LogisticRegression(C=1 / (l2 * len(x)), tol=1e-8, max_iter=1000).fit(x, labels.numpy())
    expected = torch.from_numpy(reference.predict_proba(x)).float()
    assert (probe(features).softmax(dim=1) - expected).abs().max() < 5e-3


def test_the_regression_is_ridge() -> None:
    torch.manual_seed(0)
    features = torch.randn(200, 6) * 3 + 1
    targets = features @ torch.randn(6) + 0.1 * torch.randn(200)
    probe = fit_regression(features, targets, l2=0.05)
    x = ((features - features.mean(0)) / features.std(0)).numpy()
    reference = Ridge(alpha=0.05 * len(x)).fit(x, targets.numpy())
    assert torch.allclose(probe(features)[:, 0], torch.from_numpy(reference.predict(x)).float(), atol=1e-3)


def test_a_constant_feature_does_no_harm() -> None:
    features, labels = blobs(100, 1.0, 0)
    features = torch.cat([features, torch.full((100, 1), 3.0)], dim=1)
    assert torch.isfinite(fit_classifier(features, labels, 3, 1e-4)(features)).all()


def test_neighbours_vote_by_their_weights() -> None:
    # Two far neighbours of class 0 against one near of class 1: exp(1 / T) beats 2 exp(0.6 / T) for a small T only.
    memory = torch.tensor([[0.6, 0.8], [0.6, -0.8], [1.0, 0.0]])
    labels = torch.tensor([0, 0, 1])
    query = torch.tensor([[2.0, 0.0]])
    assert math.exp(0.4 / 0.07) > 2 > math.exp(0.4 / 1.0)
    assert knn_predict(memory, labels, query, 2, k=3, temperature=0.07).item() == 1
    assert knn_predict(memory, labels, query, 2, k=3, temperature=1.0).item() == 0


def test_k_beyond_the_memory_uses_all_of_it() -> None:
    assert knn_predict(torch.eye(2), torch.tensor([0, 1]), torch.eye(2), 2, k=20, temperature=0.07).tolist() == [0, 1]


def test_patch_classes_are_majorities() -> None:
    mask = torch.tensor([[[1, 1, 0, 0], [1, 2, 0, 0], [2, 2, 1, 1], [2, 2, 0, 0]]])
    assert patch_classes(mask, (2, 2), 3).tolist() == [[1, 0, 2, 0]]


def test_patch_depth_is_the_mean() -> None:
    depth = torch.arange(16.0).view(1, 4, 4)
    assert patch_depth(depth, (2, 2))[0].tolist() == pytest.approx([2.5, 4.5, 10.5, 12.5])
