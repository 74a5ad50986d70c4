"""The Optuna study of a search: the one record of what happened, in a journal file or a database.

Each row holds the parameters, the state (RUNNING, COMPLETE, FAIL, or PRUNED for stopped early; RUNNING also while the
trial waits for a host, see `state_of`), the objectives of a COMPLETE trial, and by epoch the metric by which trials are
stopped; its user attributes are the constants below.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from singer_ray.errors import UserError, printable
from singer_ray.search.study.objectives import Objectives

REPEATS = "-repeats"
"""Added to a study's name: the study of the leading trials' further seeds, in the same storage."""

COMPLETE, PRUNED, FAIL, RUNNING, WAITING = "COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING"
ENDED = (COMPLETE, PRUNED, FAIL)
QUEUED = "QUEUED"
"""What people are shown of a row that is RUNNING to Optuna while its trial waits for a host."""

# User attributes of a row.
TRIAL_ID = "trial_id"
"""Ray Tune's name of the trial; after a resume the latest one."""
FOLDER = "folder"
"""Address of the trial's folder: its checkpoint."""
CHECKPOINT = "checkpoint"
"""Address of its checkpoint, when there is one."""
METRICS = "metrics"
"""The last result: flat names and finite numbers."""
SECONDS = "seconds"
"""Seconds that its epochs took."""
WAITED = "waited_seconds"
"""Seconds that its actor waited for a host, which may still be busy when the actor starts."""
IN_QUEUE = "queued"
"""Whether it waits for a host. Rows of earlier versions lack it."""
STARTED = "started"
"""When a host first took it: local time in ISO 8601, as Optuna's own times are. Rows of earlier versions lack it."""
RESUMED = "resumed_from_epoch"
STOPPED = "stopped"
"""At which epoch the scheduler stopped it, and the notes that the pruner took (see `Judge`)."""
FAULT = "fault"
"""Why it failed, in words."""
IMPORTED = "imported_from"
"""Address of the earlier search that a warm-start row comes from; such a row was not run here."""
REPEAT_OF, SEED = "repeat_of", "seed"
"""In the study of repeats: number of the repeated row, and the seed."""

# Keys of a trial's results, beside those above.
TAKEN = "taken"
"""Unix seconds at which a host took the trial, this time."""
REMARK = "remark"
"""A line to print, once."""

HISTORY = "history"
"""[epoch, {metric: value}] of earlier epochs: the study may have missed some when its driver died."""
UNSAVED = "unsaved"
"""Why a checkpoint could not be written or read. The trial is not to blame: this ends the session."""

# System attributes of a row.
OF_EPOCH = "epoch:"
"""A prefix to an epoch's number: the objectives' values, where Optuna's intermediate value is another metric."""

# User attributes of a study.
EPOCHS, STOP_METRIC, STOP_MODE, SPACE = "epochs", "stop_metric", "stop_mode", "space"
SEARCH = "search"
"""The id of the search that it belongs to."""


def objectives_of(study: optuna.Study) -> Objectives:
    """The objectives with which a study was created."""
    names = study.metric_names or []
    modes = tuple({"MAXIMIZE": "max", "MINIMIZE": "min"}[d.name] for d in study.directions)
    attributes = study.user_attrs
    return Objectives(tuple(names), modes, attributes[STOP_METRIC], attributes[STOP_MODE])


def own_rows(study: optuna.Study, states: Sequence[str] = ()) -> list[FrozenTrial]:
    """The rows of trials that this search started, by number: without imported and waiting ones."""
    wanted = [TrialState[state] for state in states] or [s for s in TrialState if s is not TrialState.WAITING]
    return [row for row in study.get_trials(deepcopy=False) if row.state in wanted and IMPORTED not in row.user_attrs]


def label_of(number: int, seed: int | None = None) -> str:
    """A trial's name in folders, on screen and in tables. Raises UserError unless both are whole numbers from 0."""
    if any(type(part) is not int or part < 0 for part in (number, seed) if part is not None):
        raise UserError(
            f"The study has a trial {printable(repr(number), 60)} with the seed {printable(repr(seed), 60)}, which no "
            "search writes. Do not use this study."
        )
    return f"{number:03d}" if seed is None else f"{number:03d}-seed{seed}"


def label_of_row(row: FrozenTrial) -> str:
    """The label of a row, which may be a repeat of another one."""
    return label_of(row.user_attrs.get(REPEAT_OF, row.number), row.user_attrs.get(SEED))


def state_of(row: FrozenTrial) -> str:
    """The state to display: QUEUED for a trial that waits for a host, else Optuna's."""
    waits = row.state is TrialState.RUNNING and row.user_attrs.get(IN_QUEUE)
    return QUEUED if waits else row.state.name


def started(row: FrozenTrial) -> datetime | None:
    """When a host first took it (local time), or for rows of earlier versions was asked for; None while it waits."""
    if STARTED in row.user_attrs:
        with contextlib.suppress(ValueError, TypeError):
            return datetime.fromisoformat(row.user_attrs[STARTED]).replace(tzinfo=None)
    return None if row.user_attrs.get(IN_QUEUE) else row.datetime_start


def values_by_epoch(row: FrozenTrial, objectives: Objectives) -> dict[int, dict[str, float]]:
    """Epoch -> the objectives' values that the study holds for it."""
    if not objectives.stops_apart:
        return {epoch: {objectives.stop_metric: value} for epoch, value in row.intermediate_values.items()}
    return {int(k.removeprefix(OF_EPOCH)): v for k, v in row.system_attrs.items() if k.startswith(OF_EPOCH)}


def last_result(row: FrozenTrial) -> Mapping[str, Any]:
    """The metrics of a row's last epoch, as far as they are known."""
    metrics: Mapping[str, Any] = row.user_attrs.get(METRICS, {})
    return metrics


def epochs_of(row: FrozenTrial) -> int:
    """Epochs that a row has finished."""
    return max([int(last_result(row).get("epoch", 0)), *row.intermediate_values], default=0)
