"""A view of a study that hides every attribute that this program does not write.

A search's folder, journal or database may come from a stranger. Optuna's samplers and pruners trust the attributes of
a study (one of them used to unpickle them), and so do the report and the tables here.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from singer_ray.search.study import schema as attributes

Check = Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_whole(value) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_moment(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(datetime.fromisoformat(value))
    except ValueError:
        return False


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, bool, int, float))


def _is_point(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_plain, value.values()))


def _are_scores(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_number, value.values()))


def _is_verdict(value: Any) -> bool:
    """See `Judge`."""
    if not isinstance(value, Mapping) or not _is_count(value.get("epoch")) or not _is_list(value.get("notes")):
        return False
    return all(_is_list(note) and len(note) == 2 and known_of_row(*note) for note in value["notes"])


_OF_ROWS: Mapping[str, Check] = {
    attributes.TRIAL_ID: _is_text,
    attributes.FOLDER: _is_text,
    attributes.CHECKPOINT: _is_text,
    attributes.METRICS: _are_scores,
    attributes.SECONDS: _is_number,
    attributes.WAITED: _is_number,
    attributes.RESUMED: _is_count,
    attributes.STOPPED: _is_verdict,
    attributes.FAULT: _is_text,
    attributes.IN_QUEUE: _is_flag,
    attributes.STARTED: _is_moment,
    attributes.IMPORTED: _is_text,
    attributes.REPEAT_OF: _is_count,
    attributes.SEED: _is_count,
}
_NOTED_IN_ROWS: Mapping[str, Check] = {
    "fixed_params": _is_point,
    "cma:generation": _is_count,
    "NSGAIISampler:generation": _is_count,
}
_NUMBERED_IN_ROWS: Mapping[str, Check] = {
    rf"{attributes.OF_EPOCH}\d{{1,9}}": _are_scores,
    r"completed_rung_\d{1,9}": _is_number,
    r"(?:tpe|gp):relative_params:\d{1,9}": _is_text,
}
"""What Optuna's samplers and pruners note in a row, and AskTell."""
_OF_STUDY: Mapping[str, Check] = {
    attributes.EPOCHS: _is_count,
    attributes.STOP_METRIC: _is_text,
    attributes.STOP_MODE: lambda v: v in ("max", "min"),
    attributes.SPACE: lambda v: isinstance(v, Mapping),
    attributes.SEARCH: _is_text,
}


def _are_texts(value: Any) -> bool:
    return _is_list(value) and all(map(_is_text, value))


def known_of_row(key: Any, value: Any) -> bool:
    """Whether the search may have written this system attribute to a row."""
    if not isinstance(key, str):
        return False
    if key in _NOTED_IN_ROWS:
        return _NOTED_IN_ROWS[key](value)
    return any(re.fullmatch(name, key) and check(value) for name, check in _NUMBERED_IN_ROWS.items())


def _noted_in_study(key: str, value: Any) -> bool:
    if key == "study:metric_names":
        return _are_texts(value)
    parents = re.fullmatch(r"NSGAIISampler:parent:\d{1,9}", key)
    return bool(parents) and _is_list(value) and all(map(_is_whole, value))


def _given_with_row(key: str, value: Any) -> bool:
    return key in _OF_ROWS and _OF_ROWS[key](value)


def _given_with_study(key: str, value: Any) -> bool:
    return key in _OF_STUDY and _OF_STUDY[key](value)


class Screened:
    """A storage that hides attributes of unknown names, or with values of the wrong type."""

    def __init__(self, storage: BaseStorage) -> None:
        self.storage = storage
        self._clean: set[int] = set()
        """Rows that have ended and need no screening."""

    def get_all_trials(self, *given: Any, **named: Any) -> list[FrozenTrial]:
        clean = self._clean
        return [r if r._trial_id in clean else self._row(r) for r in self.storage.get_all_trials(*given, **named)]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._row(self.storage.get_trial(trial_id))

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        return self._row(self.storage.get_best_trial(study_id))

    def get_trial_user_attrs(self, trial_id: int) -> dict[str, Any]:
        return dict(self.get_trial(trial_id).user_attrs)

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        return dict(self.get_trial(trial_id).system_attrs)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return _only(self.storage.get_study_user_attrs(study_id), _given_with_study)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return _only(self.storage.get_study_system_attrs(study_id), _noted_in_study)

    def _row(self, row: FrozenTrial) -> FrozenTrial:
        given, noted = _only(row.user_attrs, _given_with_row), _only(row.system_attrs, known_of_row)
        if len(given) == len(row.user_attrs) and len(noted) == len(row.system_attrs):
            if row.state.is_finished():
                self._clean.add(row._trial_id)
            return row
        row = copy.copy(row)
        row.user_attrs, row.system_attrs = given, noted
        return row

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage, name)


def _only(given: Mapping[str, Any], known: Callable[[str, Any], bool]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if known(key, value)}
