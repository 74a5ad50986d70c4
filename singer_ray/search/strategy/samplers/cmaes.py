"""cmaes: CMA-ES, for numbers and one objective."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import optuna
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, CmaEsSampler
from optuna.samplers._lazy_random_state import LazyRandomState
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, create_trial

from singer_ray.search.strategy.samplers.base import Sampler, SamplerTask

if TYPE_CHECKING:
    from cmaes import CMA

LEARNS_FROM = 10
"""Imported rows that it needs to start from: it takes their best tenth. With fewer it starts in the middle."""


class _CMAES(Sampler):
    takes_conditions = False
    takes_choices = False
    takes_several_objectives = False
    learns_from_stopped = False

    def make(self, task: SamplerTask) -> BaseSampler:
        imported = task.imported if len(task.imported) >= LEARNS_FROM else None
        return _ReplayedCmaEs(
            seed=task.trial_seed,
            n_startup_trials=task.search.startup_trials,
            warn_independent_sampling=False,
            source_trials=None if imported is None else [_varying_part(row) for row in imported],
        )


class _ReplayedCmaEs(CmaEsSampler):
    """CMA-ES whose state follows from the finished rows.

    Optuna's own keeps its state in the study as a pickle and loads it again: whoever wrote the study could run code
    here. This one replays what it was told instead, generation by generation. Each generation consists of the rows that
    finished first, so later rows do not change it.
    """

    def __init__(self, *, seed: int, **given: Any) -> None:
        super().__init__(seed=seed, **given)
        self._seed = seed
        self._told: CMA | None = None

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._told = self._replay(study, search_space) if search_space else None
        return super().sample_relative(study, trial, search_space)

    def _replay(self, study: optuna.Study, search_space: dict[str, BaseDistribution]) -> CMA | None:
        """The optimiser after all whole generations; None before the first."""
        rows = [row for row in self._get_trials(study) if self._attr_key_generation in row.system_attrs]
        rows.sort(key=lambda row: (row.datetime_complete or datetime.min, row.number))
        if not rows:
            return None
        transform = _SearchSpaceTransform(search_space, transform_step=True, transform_0_1=True)
        optimizer: Any = self._init_optimizer(transform, study.direction)
        self._cma_rng = LazyRandomState(self._seed)  # rewind: nothing has been drawn
        sign = 1 if study.direction == StudyDirection.MINIMIZE else -1
        while True:
            told = self._get_solution_trials(rows, optimizer.generation)[: optimizer.population_size]
            if len(told) < optimizer.population_size:
                break
            optimizer.tell([(transform.transform(row.params), sign * row.values[0]) for row in told])
        if not optimizer.generation:
            return None
        if not any(row.system_attrs[self._attr_key_generation] for row in rows):
            # Optuna draws a seed for each new optimiser until it has kept one: draw it too, to suggest what it would.
            self._cma_rng.rng.randint(1, 2**31 - 2)
        return optimizer

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> CMA | None:
        return self._told

    def _split_optimizer_str(self, optimizer_str: str) -> dict[str, str]:
        return {}  # nothing is kept in the study


def _varying_part(row: FrozenTrial) -> FrozenTrial:
    """The row without parameters of a single value: cmaes passes over those, and over rows that have more than it."""
    varying = {name: kind for name, kind in row.distributions.items() if not kind.single()}
    return create_trial(values=row.values, params={n: row.params[n] for n in varying}, distributions=varying)


SAMPLER = _CMAES()
