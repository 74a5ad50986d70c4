"""Who suggests a trial's parameters: the samplers of `search.sampler`.

tpe takes every space and any number of objectives, and learns from stopped trials too. gp, cmaes and nsga2 learn from
COMPLETE ones only (`remarks` says so). gp loads torch into the process that searches.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import optuna
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.samplers._lazy_random_state import LazyRandomState
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from singer_ray.config import Config, SearchConfig
from singer_ray.errors import UserError
from singer_ray.search.space.parameters import Choice
from singer_ray.search.space.space import SearchSpace
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.schema import own_rows

if TYPE_CHECKING:
    from cmaes import CMA

SAMPLERS: tuple[str, ...] = get_args(SearchConfig.model_fields["sampler"].annotation)
LEARN_FROM_FINISHED = ("gp", "cmaes", "nsga2")
LARGEST_GRID = 100_000
"""Points of a grid beyond which nobody trains each."""
GENERATIONS = 5
"""How many generations of nsga2 a search has time for: Optuna's population of 50 would make most searches random."""
CMAES_LEARNS_FROM = 10
"""Imported rows from which cmaes can start: it takes their best tenth; with fewer it starts in the middle."""
FIRST_GENERATION = {NSGAIISampler._get_generation_key(): 0}
"""With this attribute nsga2 takes imported rows for its first generation; it passes over rows without."""


def make_sampler(
    config: Config,
    space: SearchSpace,
    objectives: Objectives,
    imported: Sequence[FrozenTrial] = (),
    *,
    number: int = 0,
) -> BaseSampler:
    """The sampler that `config.search` asks for, to suggest the parameters of one trial.

    Its random numbers follow from `config.seed` and the trial's `number`, all else from the study: a search that was
    cut off goes on as it would have, with no state to restore.
    `imported` are the rows that a warm start brought: cmaes starts from ten or more; the others read the study.
    Whether it can take the space and the objectives is `check_sampler`'s question.
    """
    search, seed = config.search, int(np.random.SeedSequence([config.seed % 2**32, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match search.sampler:
            case "gp":
                return GPSampler(seed=seed, n_startup_trials=search.startup_trials, warn_independent_sampling=False)
            case "cmaes":
                known = [_varying_part(row) for row in imported] if len(imported) >= CMAES_LEARNS_FROM else None
                return _ReplayedCmaEs(
                    seed=seed,
                    n_startup_trials=search.startup_trials,
                    warn_independent_sampling=False,
                    source_trials=known,
                )
            case "nsga2":
                population = min(max(search.trials // GENERATIONS, 4), 50)
                return NSGAIISampler(seed=seed, population_size=population)
            case "random":
                return RandomSampler(seed=seed)
            case "grid":
                return GridSampler(space, config.seed % 2**32)
            case "tpe":  # running trials count as bad ones (constant liar), so that concurrent ones differ
                kind = _CurvelessTPE if objectives.stops_apart else TPESampler
                return kind(
                    seed=seed, n_startup_trials=search.startup_trials, multivariate=True, group=space.conditional
                )


def check_sampler(config: Config, space: SearchSpace, objectives: Sequence[str]) -> None:
    """Raises UserError when `search.sampler` cannot take the space or the objectives, naming those that can.

    Asked before anything starts, of `search.objectives`: empty where the data will tell.
    """
    fault = _fault(config.search.sampler, space, objectives)
    if fault:
        able = [name for name in SAMPLERS if not _fault(name, space, objectives)]
        raise UserError(f"search.sampler {config.search.sampler} {fault}. Allowed for this search: {', '.join(able)}.")


def remarks(config: Config, space: SearchSpace, study: optuna.Study) -> list[str]:
    """What someone who chose this sampler may not expect, a line each, for the screen before the first trial."""
    search, found = config.search, []
    size = space.size()
    if search.sampler == "grid" and size:
        started = len(own_rows(study))
        wanted = started + size - len(_asked(study, space, waiting=False))  # imported points are not tried again
        if wanted > search.trials:
            found.append(
                f"the grid has {size} points, and search.trials {search.trials} leaves {wanted - search.trials} "
                f"of them out: --trials {wanted} tries each"
            )
    if search.sampler in LEARN_FROM_FINISHED and search.scheduler != "none":
        found.append(
            f"{search.sampler} learns only from trials that finish, and {search.scheduler} stops others before: "
            "--search.scheduler none lets it learn from all, tpe (the default) learns from stopped ones too"
        )
    return found


def _fault(sampler: str, space: SearchSpace, objectives: Sequence[str]) -> str | None:
    """Why a sampler cannot take this search."""
    varying = [name for name, distribution in space.distributions.items() if not distribution.single()]
    # Optuna does not refuse conditions here: it draws what depends on them at random, for the whole search.
    if sampler in LEARN_FROM_FINISHED and space.conditional:
        name = next(name for name, parameter in space.parameters.items() if parameter.when)
        return f"does not learn parameters with conditions, such as {name}"
    if sampler == "cmaes":
        choices = [name for name in varying if isinstance(space.parameters[name], Choice)]
        if choices:
            return f"does not learn choices, such as {choices[0]}"
        if len(objectives) > 1:
            return f"takes one objective, not {len(objectives)} ({', '.join(objectives)})"
    if sampler == "nsga2" and len(varying) < 2:
        return "needs two parameters or more to cross"
    if sampler == "grid":
        endless = next((name for name, parameter in space.parameters.items() if parameter.count() is None), None)
        if endless:
            return f"needs a finite number of values, but {endless} is continuous: give it a step, or make it a choice"
        if (space.size() or 0) > LARGEST_GRID:
            return f"would try {space.size()} points; {LARGEST_GRID} at most: widen steps or drop values"
    return None


class _ReplayedCmaEs(CmaEsSampler):
    """CMA-ES whose state follows from the finished rows.

    Optuna's own keeps its state in the study, as a pickle that it loads again: whoever wrote a study could run code
    here. What was told is told anew instead, a generation after the other; in each those that finished first, which
    later ones do not change.
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
        self._cma_rng = LazyRandomState(self._seed)  # as if nothing had been drawn
        sign = 1 if study.direction == StudyDirection.MINIMIZE else -1
        while True:
            told = self._get_solution_trials(rows, optimizer.generation)[: optimizer.population_size]
            if len(told) < optimizer.population_size:
                break
            optimizer.tell([(transform.transform(row.params), sign * row.values[0]) for row in told])
        if not optimizer.generation:
            return None
        if not any(row.system_attrs[self._attr_key_generation] for row in rows):
            # Optuna had drawn for a new optimiser until it kept the first: searches of one seed stay what they were.
            self._cma_rng.rng.randint(1, 2**31 - 2)
        return optimizer

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> CMA | None:
        return self._told

    def _split_optimizer_str(self, optimizer_str: str) -> dict[str, str]:
        return {}  # nothing is kept in the study


class _CurvelessTPE(TPESampler):
    """TPE where stopped trials count as worse than finished ones, and as alike.

    Optuna's own ranks stopped trials by their last intermediate value, which it refuses with several objectives, and
    which is another metric where trials are stopped by one that is not the objective.
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
    """A storage that shows stopped trials without their intermediate values."""

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


def _varying_part(row: FrozenTrial) -> FrozenTrial:
    """The row without parameters of a single value: cmaes passes over those, and over rows that have more than it."""
    varying = {name: kind for name, kind in row.distributions.items() if not kind.single()}
    return create_trial(values=row.values, params={n: row.params[n] for n in varying}, distributions=varying)


class GridSampler(BaseSampler):
    """Each point of a space once, in an order drawn from the seed, conditions included.

    What was asked is read from the study, failed and imported rows included, so it can stop and go on at any time;
    points that wait in the queue are left to it. Optuna's BruteForceSampler does the same by Study.stop, which raises
    when trials are told rather than optimised.
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
        """The next point; of an enqueued trial, one that agrees with it. Raises RuntimeError at the end of the grid."""
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
    """Whether each point of the space was asked, so that a grid has nothing left; False for a space without end."""
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
    found: Mapping[str, Any] = row.system_attrs.get("fixed_params", {})
    return found


def _places(space: SearchSpace, point: Mapping[str, Any]) -> dict[str, int]:
    """The point by the number of each value on its parameter's grid: 0.1 + 0.2 and 0.3 are one value."""
    return {name: space.parameters[name].place(value) for name, value in point.items()}


def _key(places: Mapping[str, int]) -> frozenset[tuple[str, int]]:
    return frozenset(places.items())
