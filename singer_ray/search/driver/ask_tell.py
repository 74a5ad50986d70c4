"""The study kept true while trials run: what was asked, what was reported, how each trial ended. Without Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from singer_ray.search.space.space import SearchSpace
from singer_ray.search.strategy.judge import Judge
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.running import Assignment, RunningRow, is_finite
from singer_ray.search.study.schema import (
    COMPLETE,
    FAULT,
    FOLDER,
    HISTORY,
    IN_QUEUE,
    METRICS,
    OF_EPOCH,
    PRUNED,
    RUNNING,
    STARTED,
    TAKEN,
    TRIAL_ID,
    WAITING,
    own_rows,
    values_by_epoch,
)
from singer_ray.tracking.callback import Callback


@dataclass(frozen=True)
class StudySpec:
    """What a study is to hold in the end, and of what kind."""

    space: SearchSpace
    objectives: Objectives
    epochs: int
    """Of a whole trial."""
    trials: int
    """Rows, those of earlier sessions included."""
    folder: str
    """Address below which the trials' folders lie."""


class AskTell:
    """Asks the study for parameters and tells it what became of them.

    A row that was RUNNING when this was made has lost its driver: it is adopted, under its number and with its
    parameters, before any new one is asked for.

    Args:
        pruner: who stops trials early, by the objectives' stop metric.
        sampler_of: who suggests the parameters of a number; the study's own sampler without it.
        callbacks: hear of every trial that is asked for, taken by a host, its epochs and its end.
        saved: called after every change; True where the change must not be lost.
        exhausted: whether there is nothing new to ask for.
        recall: by label and overrides what a trial's last checkpoint has reported, None without one.
    """

    def __init__(
        self,
        study: optuna.Study,
        spec: StudySpec,
        *,
        pruner: BasePruner,
        sampler_of: Callable[[int], BaseSampler] | None = None,
        callbacks: Sequence[Callback] = (),
        saved: Callable[[bool], None] = lambda urgent: None,
        exhausted: Callable[[], bool] = lambda: False,
        recall: Callable[[str, Mapping[str, Any]], Mapping[str, Any] | None] = lambda label, overrides: None,
    ) -> None:
        self.study, self.spec, self.objectives = study, spec, spec.objectives
        self.judge = Judge(study, spec.objectives, pruner)
        self.callbacks, self.saved = callbacks, saved
        self.sampler_of, self.exhausted, self.recall = sampler_of, exhausted, recall
        self.orphans = own_rows(study, [RUNNING])
        self.left = max(0, spec.trials - len(own_rows(study)))
        self.open: dict[int, RunningRow] = {}
        self._storage = study._storage
        for row in self.orphans:  # their hosts have gone with their driver
            self._storage.set_trial_user_attr(row._trial_id, IN_QUEUE, True)

    @property
    def expected(self) -> int:
        """Trials that are still to run."""
        return len(self.orphans) + self.left

    def ask(self, trial_id: str) -> Assignment | None:
        """The next trial, to be known as `trial_id`; None when there is none."""
        adopted = bool(self.orphans)
        if adopted:
            row = self.orphans.pop(0)
            self._suggest_by(row.number)
            trial = optuna.Trial(self.study, row._trial_id)
            if TRIAL_ID not in row.user_attrs:
                trial._fixed_params = self._drawn_again(row)
        elif self.left and not self.exhausted():
            self.left -= 1
            self._suggest_by(self._next())
            trial = self.study.ask()
        else:
            return None
        self.spec.space(trial)  # of an adopted row, only what it had not drawn yet
        stored = self._storage.get_trial(trial._trial_id)
        self.open[trial.number] = RunningRow.of(stored, adopted=adopted)
        assignment = self.open[trial.number].assignment
        trial.set_user_attr(TRIAL_ID, trial_id)
        if FOLDER not in stored.user_attrs:
            trial.set_user_attr(FOLDER, f"{self.spec.folder}/{assignment.label}")
        trial.set_user_attr(IN_QUEUE, True)
        self.saved(True)
        for callback in self.callbacks:
            callback.on_trial_queued(assignment.label, assignment.parameters)
        return assignment

    def placed(self, when: float, places: Mapping[str, float]) -> None:
        """Which trials have a host, by label: since when, and when that was seen (Unix seconds)."""
        for row in list(self.open.values()):
            since = places.get(row.label)
            if since is not None:
                self._take(row, since)
            elif row.taken is not None and row.taken < when:  # its host or its actor is gone
                row.taken = None
                self._storage.set_trial_user_attr(row.storage_id, IN_QUEUE, True)
                self.saved(False)
                for callback in self.callbacks:
                    callback.on_trial_queued(row.label, row.assignment.parameters)

    def report(self, number: int, result: Mapping[str, Any]) -> None:
        """Records an epoch's values, and those of earlier epochs that the study has missed."""
        row = self.open[number]
        if TAKEN in result or result.get("epoch"):
            self._take(row, float(result.get(TAKEN, time.time())))
        result = {key: value for key, value in result.items() if key != TAKEN}
        for epoch, values in result.get(HISTORY, ()):
            if self._record(row, int(epoch), values) or int(epoch) == max(row.values, default=0):
                # Others are measured by what the pruner notes of it.
                row.verdict = self.judge(row.storage_id, row.verdict, went_on=True)
        self._record(row, int(result["epoch"]), result)
        if FAULT not in result:
            row.result = dict(result)
            for callback in self.callbacks:
                callback.on_epoch_end(row.label, int(result["epoch"]), result)
        self.saved(False)

    def should_stop(self, number: int) -> bool:
        """Whether the pruner ends the trial here. Its last epoch is never cut off."""
        row = self.open[number]
        last = max(row.values, default=0)
        if not last or last >= self.spec.epochs or last != row.epoch:
            return False
        row.verdict = self.judge(row.storage_id, row.verdict)
        return row.verdict is not None

    def end(self, number: int, result: Mapping[str, Any] | None = None, *, error: bool = False) -> str:
        """Tells the study how a trial ended; returns the state. A second telling changes nothing."""
        row = self.open.get(number)
        if row is None:
            return self._storage.get_trial(self._id(number)).state.name
        result = result or {}
        if row.adopted and not error and FAULT not in result and not (row.epoch or result.get("epoch")):
            result = self.recall(row.label, row.assignment.overrides) or {}
        if FAULT not in result and int(result.get("epoch", 0)) not in (0, row.epoch):
            self.report(number, result)
        del self.open[number]
        state, why = row.outcome(result, self.objectives, self.spec.epochs, died=error)
        if state == WAITING:
            return self._put_back(row)
        attributes = row.attributes(why)
        for key, value in attributes.items():
            self._storage.set_trial_user_attr(row.storage_id, key, value)
        self._tell(number, row, state)
        self.saved(True)
        for callback in self.callbacks:
            callback.on_trial_end(row.label, state, attributes[METRICS] | ({FAULT: why} if why else {}))
        return state

    def _take(self, row: RunningRow, since: float) -> None:
        """A host has the trial."""
        if row.taken is not None:
            return
        row.taken = since
        if not row.begun:
            row.begun = True
            begin = datetime.fromtimestamp(since).isoformat(timespec="milliseconds")
            self._storage.set_trial_user_attr(row.storage_id, STARTED, begin)
        self._storage.set_trial_user_attr(row.storage_id, IN_QUEUE, False)
        self.saved(False)
        for callback in self.callbacks:
            callback.on_trial_start(row.label, row.assignment.parameters)

    def _tell(self, number: int, row: RunningRow, state: str) -> None:
        if state == PRUNED and self.objectives.stops_apart:
            # Study.tell would take the metric that it was stopped by for its value.
            reached = values_by_epoch(self._storage.get_trial(row.storage_id), self.objectives)
            values = self.objectives.values(reached[max(reached)]) if reached else None
            self._storage.set_trial_state_values(row.storage_id, TrialState.PRUNED, values)
        else:
            values = self.objectives.values(row.result) if state == COMPLETE else None
            self.study.tell(number, values, state=TrialState[state])

    def close(self) -> None:
        """Ends every open row: nothing stays RUNNING when a search is over."""
        for number in list(self.open):
            self.end(number)
        for row in self.orphans:  # a search that ended by its budget before it could take them up
            self.open[row.number] = RunningRow.of(row, adopted=True)
            self.end(row.number)
        self.orphans = []

    def _put_back(self, row: RunningRow) -> str:
        """A trial that was ended before it could show anything waits for a later session, and keeps its checkpoint."""
        self._storage.set_trial_state_values(row.storage_id, TrialState.WAITING)
        self.saved(True)
        for callback in self.callbacks:
            callback.on_trial_end(row.label, WAITING, {})
        return WAITING

    def _suggest_by(self, number: int) -> None:
        if self.sampler_of is not None:
            self.study.sampler = self.sampler_of(number)

    def _next(self) -> int:
        """The number of the row that the study gives out next."""
        rows = self.study.get_trials(deepcopy=False)
        return min((row.number for row in rows if row.state is TrialState.WAITING), default=len(rows))

    def _drawn_again(self, row: FrozenTrial) -> dict[str, Any]:
        """All parameters of a row whose driver died while it drew them.

        They are drawn in a copy of the study, from the first one on: the missing ones alone would get other random
        numbers.
        """
        scratch = optuna.create_study(directions=self.study.directions, sampler=self.study.sampler)
        scratch.add_trials(earlier for earlier in self.study.get_trials(deepcopy=False) if earlier.number < row.number)
        again = optuna.Trial(scratch, scratch._storage.create_new_trial(scratch._study_id))
        again._fixed_params = row.system_attrs.get("fixed_params", {})
        self.spec.space(again)
        return again.params

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)

    def _record(self, row: RunningRow, epoch: int, values: Mapping[str, Any]) -> bool:
        """Whether the study had not known of it."""
        stop = values.get(self.objectives.stop_metric)
        row.latest = row.latest if stop is None else stop
        if epoch in row.values or not is_finite(stop):
            return False
        if self.objectives.stops_apart:  # first: an epoch counts as known by its intermediate value
            known = {name: values[name] for name in self.objectives.names if is_finite(values.get(name))}
            self._storage.set_trial_system_attr(row.storage_id, f"{OF_EPOCH}{epoch}", known)
        row.values[epoch] = float(stop)  # type: ignore[arg-type]
        self._storage.set_trial_intermediate_value(row.storage_id, epoch, row.values[epoch])
        return True
