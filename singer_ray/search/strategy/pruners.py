"""Early stopping by what the study knows (Optuna's pruners): a resumed search goes on stopping by the same rule."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from singer_ray.metrics import MAX
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.schema import IMPORTED, STOPPED

if TYPE_CHECKING:
    from singer_ray.config import Config


def make_pruner(config: Config) -> BasePruner:
    """The pruner that `search.scheduler` names. All of them work asynchronously: no trial ever waits for another.

    asha: of the trials that reach a rung (grace_epochs x reduction_factor^k epochs), one in reduction_factor goes on.
    hyperband: several such ladders, with later and later first rungs. median: a trial whose best value so far is worse
    than the median of the others' at that epoch ends, once startup_trials have finished.
    """
    search = config.search
    grace = min(search.grace_epochs, config.train.epochs)
    if search.scheduler == "asha":
        return SuccessiveHalvingPruner(min_resource=grace, reduction_factor=search.reduction_factor)
    if search.scheduler == "hyperband":
        return _Brackets(min_resource=grace, max_resource=config.train.epochs, reduction_factor=search.reduction_factor)
    if search.scheduler == "median":
        return MedianPruner(n_startup_trials=search.startup_trials, n_warmup_steps=grace)
    return NopPruner()


class Judge:
    """Asks a pruner whether a trial of the study stops, by the objectives' stop metric.

    What a pruner notes in the study tells it later that it has judged an epoch, and let the trial go on. So a verdict
    to stop is written before such notes, and with them: a driver may die at any point. Warm-start rows are no trials
    to compare with: they have no curves, and were not run here.
    """

    def __init__(self, study: optuna.Study, objectives: Objectives, pruner: BasePruner) -> None:
        self.pruner, self.storage = pruner, study._storage
        self._view = copy.copy(study)
        if objectives.stops_apart:  # pruners read one direction, which is then another than the study's
            better = StudyDirection.MAXIMIZE if objectives.stop_mode == MAX else StudyDirection.MINIMIZE
            self._view._directions = [better]

    def __call__(
        self, trial_id: int, known: Mapping[str, Any] | None, *, went_on: bool = False
    ) -> Mapping[str, Any] | None:
        """The verdict that ends a trial at its last epoch (`epoch`, and the `notes` taken); None where it goes on.

        Args:
            trial_id: of the storage.
            known: the verdict that was given on it before, if any.
            went_on: it is past that epoch already: only the notes are wanted.
        """
        trial = self.storage.get_trial(trial_id)
        verdict = known if known and known["epoch"] == trial.last_step else None
        notes = verdict["notes"] if verdict else []
        if verdict is None:
            view, seen = copy.copy(self._view), _Notes(self.storage)
            view._storage = seen  # type: ignore[assignment]
            stop, notes = self.pruner.prune(view, trial), seen.taken
            if stop and not went_on:
                verdict = {"epoch": trial.last_step, "notes": notes}
                self.storage.set_trial_user_attr(trial_id, STOPPED, verdict)
        for key, value in notes:
            self.storage.set_trial_system_attr(trial_id, key, value)
        return verdict


class _Notes:
    """A storage without warm-start rows, that keeps apart what a pruner writes to it."""

    def __init__(self, storage: BaseStorage) -> None:
        self.storage = storage
        self.taken: list[tuple[str, Any]] = []

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.taken.append((key, value))

    def get_all_trials(self, *given: Any, **named: Any) -> list[FrozenTrial]:
        return [row for row in self.storage.get_all_trials(*given, **named) if IMPORTED not in row.user_attrs]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage, name)


class _Brackets(HyperbandPruner):
    """HyperbandPruner that reads the study it is given, which may be a view of another direction."""

    def _create_bracket_study(self, study: optuna.Study, bracket_id: int) -> optuna.Study:
        bracket = super()._create_bracket_study(study, bracket_id)
        bracket._directions = study._directions
        return bracket
