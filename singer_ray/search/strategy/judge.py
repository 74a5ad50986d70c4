"""Whether a trial stops early: asked of a pruner and noted in the study, so that a resumed search keeps the rule."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from singer_ray.metrics import MAX
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.schema import IMPORTED, STOPPED


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
