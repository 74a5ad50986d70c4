"""Probes that read frozen features: a linear classifier, linear regression and nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch.nn import functional

Fitted = TypeVar("Fitted")


@dataclass(frozen=True)
class LinearProbe:
    """An affine map of standardised features: [n, dim] -> [n, outputs]."""

    mean: torch.Tensor
    std: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        return ((features.float() - self.mean) / self.std) @ self.weight + self.bias


def fit_classifier(features: torch.Tensor, labels: torch.Tensor, classes: int, l2: float) -> LinearProbe:
    """Multinomial logistic regression by full-batch L-BFGS: features [n, dim], labels [n] -> `classes` outputs.

    `l2` multiplies half the squared weights and is added to the mean cross-entropy. Deterministic.
    """
    mean, std, x = _standardize(features)
    weight = torch.zeros(x.shape[1], classes, device=x.device, requires_grad=True)
    bias = torch.zeros(classes, device=x.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        value = functional.cross_entropy(x @ weight + bias, labels) + 0.5 * l2 * weight.square().sum()
        value.backward()
        return float(value.detach())

    optimizer.step(loss)
    return LinearProbe(mean, std, weight.detach(), bias.detach())


def fit_regression(features: torch.Tensor, targets: torch.Tensor, l2: float) -> LinearProbe:
    """Ridge regression in closed form: features [n, dim], targets [n] -> a probe of one output."""
    mean, std, x = _standardize(features)
    centre = targets.float().mean()
    gram = (x.mT @ x).double() / len(x) + l2 * torch.eye(x.shape[1], dtype=torch.double, device=x.device)
    moment = (x.mT @ (targets.float() - centre)).double() / len(x)
    weight = torch.linalg.solve(gram, moment).float()[:, None]
    return LinearProbe(mean, std, weight, centre[None])


def choose_l2(
    fit: Callable[[float], Fitted], score: Callable[[Fitted], float], grid: Sequence[float]
) -> tuple[Fitted, float]:
    """The probe of `grid` with the highest validation `score`, and its regulariser; the strongest one on a tie."""
    candidates = [(fit(l2), l2) for l2 in sorted(grid, reverse=True)]
    return max(candidates, key=lambda candidate: score(candidate[0]))  # max keeps the first of equals


def knn_predict(
    memory: torch.Tensor, labels: torch.Tensor, queries: torch.Tensor, classes: int, k: int, temperature: float
) -> torch.Tensor:
    """Class of each query [m, dim] by its k nearest of `memory` [n, dim]: cosine votes weighted exp(similarity / T)."""
    memory = functional.normalize(memory.float(), dim=1)
    predictions = []
    for chunk in functional.normalize(queries.float(), dim=1).split(1024):
        similarity, neighbour = (chunk @ memory.T).topk(min(k, len(memory)), dim=1)
        votes = torch.zeros(len(chunk), classes, device=chunk.device)
        votes.scatter_add_(1, labels[neighbour], ((similarity - 1) / temperature).exp())
        predictions.append(votes.argmax(dim=1))
    return torch.cat(predictions)


def _standardize(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = features.float()
    mean, std = x.mean(dim=0), x.std(dim=0).clamp_min(1e-6)
    return mean, std, (x - mean) / std
