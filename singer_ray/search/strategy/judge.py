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

    A pruner's notes in the study tell it later that it has judged an epoch already, and let the trial go on. So a
    verdict to stop is written before such notes, and contains them: a driver may die at any point. The pruner does not
    see warm-start rows, which have no curves and were not run here.
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
        """The verdict that ends a trial at its last epoch (`epoch`, and the pruner's `notes`); None when it goes on.

        Args:
            trial_id: the trial's id in the storage.
            known: an earlier verdict on this trial, if any.
            went_on: the trial is past that epoch already: only the notes are needed.
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
    """A view of a storage without warm-start rows, which collects what a pruner writes instead of writing it."""

    def __init__(self, storage: BaseStorage) -> None:
        self.storage = storage
        self.taken: list[tuple[str, Any]] = []

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.taken.append((key, value))

    def get_all_trials(self, *given: Any, **named: Any) -> list[FrozenTrial]:
        return [row for row in self.storage.get_all_trials(*given, **named) if IMPORTED not in row.user_attrs]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage, name)
