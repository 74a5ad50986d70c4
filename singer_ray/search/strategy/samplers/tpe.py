"""tpe: the tree-structured Parzen estimator. It takes every space, and learns from stopped trials too."""

from __future__ import annotations

import copy
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from singer_ray.search.strategy.samplers.base import Sampler, SamplerTask


class _TPE(Sampler):
    def make(self, task: SamplerTask) -> BaseSampler:
        # Running trials count as bad ones (constant liar), so that concurrent ones differ.
        kind = _CurvelessTPE if task.objectives.stops_apart else TPESampler
        return kind(
            seed=task.trial_seed,
            n_startup_trials=task.search.startup_trials,
            multivariate=True,
            group=task.space.conditional,
        )


class _CurvelessTPE(TPESampler):
    """TPE for which all stopped trials are equally bad, and worse than finished ones.

    Optuna's own ranks stopped trials by their last intermediate value. It refuses that with several objectives, and
    where trials are stopped by another metric than the objective, that value is not the objective's.
    """

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return super().sample_relative(_without_curves(study), trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return super().sample_independent(_without_curves(study), trial, param_name, param_distribution)


class _StorageWithoutCurves:
    """A view of a storage in which stopped trials have no intermediate values."""

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage

    def get_all_trials(self, *given: Any, **named: Any) -> list[FrozenTrial]:
        return [_without_curve(row) for row in self._storage.get_all_trials(*given, **named)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


def _without_curves(study: optuna.Study) -> optuna.Study:
    view = copy.copy(study)
    view._storage = _StorageWithoutCurves(study._storage)  # type: ignore[assignment]
    return view


def _without_curve(row: FrozenTrial) -> FrozenTrial:
    if row.state is not TrialState.PRUNED:
        return row
    row = copy.copy(row)
    row.intermediate_values = {}
    return row


SAMPLER = _TPE()
