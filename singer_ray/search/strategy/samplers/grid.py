"""grid: each point of a finite space once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from singer_ray.search.space.space import SearchSpace
from singer_ray.search.strategy.samplers.base import Sampler, SamplerTask
from singer_ray.search.study.schema import own_rows

if TYPE_CHECKING:
    from singer_ray.config import SearchConfig

LARGEST_GRID = 100_000
"""Points that a grid may have: nobody would train more."""


class _Grid(Sampler):
    learns = False

    def make(self, task: SamplerTask) -> BaseSampler:
        return GridSampler(task.space, task.search_seed)

    def refusal(self, space: SearchSpace, objectives: Sequence[str]) -> str | None:
        endless = next((name for name, parameter in space.parameters.items() if parameter.count() is None), None)
        if endless:
            return f"needs a finite number of values, but {endless} is continuous: give it a step, or make it a choice"
        if (space.size() or 0) > LARGEST_GRID:
            return f"would try {space.size()} points; {LARGEST_GRID} at most: widen steps or drop values"
        return super().refusal(space, objectives)

    def exhausted(self, space: SearchSpace, study: optuna.Study) -> bool:
        return grid_exhausted(study, space)

    def remarks(self, search: SearchConfig, space: SearchSpace, study: optuna.Study) -> list[str]:
        size = space.size()
        if not size:
            return []
        started = len(own_rows(study))
        wanted = started + size - len(_asked(study, space, waiting=False))  # imported points are not tried again
        if wanted <= search.trials:
            return []
        return [
            f"the grid has {size} points, and search.trials {search.trials} leaves {wanted - search.trials} "
            f"of them out: --trials {wanted} tries each"
        ]


class GridSampler(BaseSampler):
    """Each point of a space once, in an order drawn from the seed, conditions included.

    It reads from the study which points were asked, failed and imported rows included, so a search can stop and resume
    at any time. Points that are enqueued are left to the queue. Optuna's BruteForceSampler ends with Study.stop, which
    raises outside Study.optimize.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space = space
        self._points = list(space.points())
        np.random.RandomState(seed).shuffle(self._points)  # type: ignore[arg-type]

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(self._space.distributions)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next point; for an enqueued trial, one that fits it. Raises RuntimeError at the end of the grid."""
        given = _places(self._space, _queued(trial))
        fitting = [point for point in self._points if given.items() <= _places(self._space, point).items()]
        taken = _asked(study, self._space, waiting=True, apart_from=trial.number)
        for point in fitting:
            if _key(_places(self._space, point)) not in taken:
                return point
        if fitting and given:
            return fitting[0]  # someone enqueued the same point twice, in other words
        raise RuntimeError("every point of the grid was asked: call grid_exhausted before asking")

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise RuntimeError(f"{param_name} is not a parameter of this grid")


def grid_exhausted(study: optuna.Study, space: SearchSpace) -> bool:
    """Whether each point of the space was asked; False for an infinite space."""
    if space.size() is None:
        return False
    asked = _asked(study, space, waiting=False)
    return all(_key(_places(space, point)) in asked for point in space.points())


def _asked(study: optuna.Study, space: SearchSpace, *, waiting: bool, apart_from: int = -1) -> set[Any]:
    rows = [row for row in study.get_trials(deepcopy=False) if row.number != apart_from]
    asked = {_key(_places(space, row.params)) for row in rows if row.state != TrialState.WAITING}
    queued = {_key(_places(space, _queued(row))) for row in rows if row.state == TrialState.WAITING}
    return asked | queued if waiting else asked


def _queued(row: FrozenTrial) -> Mapping[str, Any]:
    point: Mapping[str, Any] = row.system_attrs.get("fixed_params", {})
    return point


def _places(space: SearchSpace, point: Mapping[str, Any]) -> dict[str, int]:
    """The point as the index of each value on its parameter's grid, where 0.1 + 0.2 and 0.3 are the same value."""
    return {name: space.parameters[name].place(value) for name, value in point.items()}


def _key(places: Mapping[str, int]) -> frozenset[tuple[str, int]]:
    return frozenset(places.items())


SAMPLER = _Grid()
