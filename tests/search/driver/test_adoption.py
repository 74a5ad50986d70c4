"""Rows whose driver died, and trials that an earlier session put back: they go on under their numbers."""

from __future__ import annotations

from typing import Any

import optuna

from singer_ray.search.study.schema import (
    HISTORY,
    IN_QUEUE,
    STARTED,
    started,
    state_of,
)
from tests.search.studies import new_ask_tell, play


def orphaned() -> tuple[optuna.Study, dict[str, Any]]:
    """A study whose driver died while trial 1 was at its second epoch and trial 2 was being asked for."""
    first = new_ask_tell(epochs=3, trials=4)
    play(first, [0.1, 0.2, 0.3])
    running = first.ask("old")
    assert running is not None
    first.report(1, {"epoch": 1, "val/miou": 0.5})
    first.study.ask()  # without parameters yet
    return first.study, running.parameters


def test_running_rows_are_adopted_under_their_number_and_with_their_parameters() -> None:
    study, parameters = orphaned()
    ask_tell = new_ask_tell(epochs=3, trials=4, study=study)
    assert ask_tell.expected == 3
    one, two, new = (ask_tell.ask(name) for name in ("a", "b", "c"))
    assert one is not None
    assert two is not None
    assert new is not None
    assert (one.number, one.parameters) == (1, parameters)
    assert two.number == 2
    assert set(two.parameters) == {"train.lr"}  # what it had not drawn is drawn now
    assert new.number == 3
    assert ask_tell.ask("d") is None
    assert study.trials[1].user_attrs["trial_id"] == "a"


def test_epochs_that_the_study_missed_are_told_by_the_checkpoint() -> None:
    study, _ = orphaned()
    ask_tell = new_ask_tell(epochs=3, trials=4, study=study)
    ask_tell.ask("a")
    history = [[1, {"val/miou": 0.5}], [2, {"val/miou": 0.6}]]
    ask_tell.report(1, {"epoch": 3, "val/miou": 0.7, HISTORY: history, "resumed_from_epoch": 3})
    assert ask_tell.end(1) == "COMPLETE"
    assert study.trials[1].intermediate_values == {1: 0.5, 2: 0.6, 3: 0.7}
    assert study.trials[1].user_attrs["resumed_from_epoch"] == 3


def test_closing_leaves_nothing_running() -> None:
    study, _ = orphaned()
    ask_tell = new_ask_tell(epochs=3, trials=4, study=study)
    ask_tell.ask("a")
    ask_tell.close()
    assert [row.state.name for row in study.trials] == ["COMPLETE", "PRUNED", "WAITING"]


def test_a_trial_that_never_began_keeps_its_number_and_parameters_for_a_later_session() -> None:
    ask_tell = new_ask_tell(epochs=1, trials=2)
    first = ask_tell.ask("a")
    assert first is not None
    ask_tell.close()
    later = new_ask_tell(epochs=1, trials=2, study=ask_tell.study)
    assert later.expected == 2
    again = later.ask("b")
    assert again is not None
    assert (again.number, again.parameters) == (first.number, first.parameters)


def test_a_trial_stopped_before_its_first_validation_goes_on_in_a_later_session() -> None:
    first = new_ask_tell(epochs=6, trials=1)
    assert play(first, [None, None]) == "WAITING"
    (row,) = first.study.trials
    later = new_ask_tell(epochs=6, trials=1, study=first.study)
    again = later.ask("b")
    assert again is not None
    assert (again.number, again.parameters) == (0, row.params)
    later.report(0, {"epoch": 2, HISTORY: [[1, {}]], "resumed_from_epoch": 2})
    assert not later.should_stop(0)
    later.report(0, {"epoch": 5, "val/miou": 0.3})
    assert later.end(0, {"epoch": 6, "val/miou": 0.4}) == "COMPLETE"
    assert first.study.trials[0].intermediate_values == {5: 0.3, 6: 0.4}


def test_a_checkpoint_tells_how_far_a_trial_came_that_a_spent_budget_ends_at_once() -> None:
    study, parameters = orphaned()
    asked: list[Any] = []

    def recall(label: str, overrides: Any) -> dict[str, Any] | None:
        asked.append((label, overrides))
        history = [[1, {"val/miou": 0.5}], [2, {"val/miou": 0.6}]]
        found = {"epoch": 3, "val/miou": 0.7, "test/miou": 0.65, "trained_seconds": 9.0, HISTORY: history}
        return found if label == "001" else None

    ask_tell = new_ask_tell(epochs=3, trials=4, study=study, recall=recall)
    ask_tell.close()
    assert asked == [("001", parameters), ("002", {})]
    assert [row.state.name for row in study.trials] == ["COMPLETE", "COMPLETE", "WAITING"]
    row = study.trials[1]
    assert (row.value, row.intermediate_values) == (0.7, {1: 0.5, 2: 0.6, 3: 0.7})
    assert row.user_attrs["metrics"] == {"epoch": 3, "val/miou": 0.7, "test/miou": 0.65}
    assert row.user_attrs["seconds"] == 9.0


def test_one_that_was_taken_up_but_not_heard_of_is_asked_of_its_checkpoint_too() -> None:
    study, _ = orphaned()
    found = {"epoch": 2, "val/miou": 0.6, HISTORY: [[1, {"val/miou": 0.5}]]}
    ask_tell = new_ask_tell(epochs=3, trials=4, study=study, recall=lambda label, overrides: found)
    ask_tell.ask("a")
    assert ask_tell.end(1) == "PRUNED"
    assert study.trials[1].intermediate_values == {1: 0.5, 2: 0.6}
    ask_tell.ask("b")
    assert ask_tell.end(2, error=True) == "FAIL"


def test_rows_of_a_dead_driver_wait_and_older_ones_began_when_they_were_asked_for() -> None:
    study, _ = orphaned()
    older = study.trials[1]
    for attribute in (IN_QUEUE, STARTED):  # as versions before them left it
        older.user_attrs.pop(attribute, None)
    assert (state_of(older), started(older)) == ("RUNNING", older.datetime_start)
    began = started(study.trials[1])
    ask_tell = new_ask_tell(epochs=3, trials=4, study=study)
    assert [state_of(row) for row in study.trials] == ["COMPLETE", "QUEUED", "QUEUED"]
    ask_tell.ask("again")
    ask_tell.placed(2e9, {"001": 2e9 - 1})
    assert state_of(study.trials[1]) == "RUNNING"
    assert started(study.trials[1]) == began
