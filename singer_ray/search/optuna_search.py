"""OptunaSearch that tells the study what really happened."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch

COMPLETE, PRUNED, FAIL = "COMPLETE", "PRUNED", "FAIL"
FAULT = "fault"
"""Result key under which a trial says in words why it could not go on."""


def trial_state(result: dict[str, Any] | None, *, metric: str, epochs: int, error: bool) -> str:
    """COMPLETE after all epochs; PRUNED when stopped before; FAIL without a finite metric or with an error."""
    value = (result or {}).get(metric)
    if error or not result or FAULT in result or value is None or not math.isfinite(value):
        return FAIL
    return COMPLETE if result["epoch"] >= epochs else PRUNED


class TruthfulOptunaSearch(OptunaSearch):
    """Ray's OptunaSearch, with three differences.

    A trial that the scheduler or the time budget stopped is told as PRUNED, not as COMPLETE with a low-fidelity value;
    one without a finite metric as FAIL, not left RUNNING for ever; and intermediate values are recorded by epoch, the
    last included.
    Suggestions are `{"number": study row, "parameters": {dotted name: value}}`.
    """

    def __init__(self, *, epochs: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._epochs = epochs

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if super().suggest(trial_id) is None:
            return None
        row = self._ot_trials[trial_id]
        row.set_user_attr("trial_id", trial_id)
        return {"number": row.number, "parameters": dict(row.params)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        value = result.get(self.metric)
        if value is not None and math.isfinite(value):
            self._ot_trials[trial_id].report(value, result["epoch"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if trial_id in self._completed_trials:
            return
        self._completed_trials.add(trial_id)
        row = self._ot_trials[trial_id]
        state = trial_state(result, metric=str(self.metric), epochs=self._epochs, error=error)
        if result and result.get(FAULT):
            row.set_user_attr(FAULT, result[FAULT])
        if result and state != FAIL:
            # Tune does not hand the last result of a stopped trial to on_trial_result.
            self.on_trial_result(trial_id, result)
        value = result[self.metric] if result and state == COMPLETE else None
        assert self._ot_study is not None
        self._ot_study.tell(row, value, state=TrialState[state])

    def close(self, outcomes: Mapping[str, tuple[dict[str, Any] | None, bool]]) -> None:
        """Tells the trials that Tune ended without a word (at the end of the time budget), so that none stays RUNNING.

        `outcomes` holds the last result of each trial id, and whether it ended in an error.
        """
        for trial_id in self._ot_trials:
            self.on_trial_complete(trial_id, *outcomes.get(trial_id, (None, False)))
