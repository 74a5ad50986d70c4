"""What the study is told: states, values by epoch, adoption of rows whose driver died, and who is stopped."""

from __future__ import annotations

import math
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from singer_ray.config import load_preset
from singer_ray.search.driver.ask_tell import AskTell
from singer_ray.search.strategy.pruners import make_pruner
from singer_ray.search.study.schema import (
    FAULT,
    HISTORY,
    IMPORTED,
    IN_QUEUE,
    REPEAT_OF,
    SEED,
    STARTED,
    TAKEN,
    own_rows,
    started,
    state_of,
    values_by_epoch,
)
from tests.search.studies import APART, MIOU, TWO, new_ledger, play

NAN = math.nan


@pytest.mark.parametrize(
    ("curve", "more", "state", "fault"),
    [
        ([0.1, 0.2, 0.3], {}, "COMPLETE", None),
        ([0.1, 0.2], {}, "PRUNED", None),
        ([0.1, 0.2, NAN], {}, "FAIL", "not finite in its last epoch"),
        ([0.1, NAN], {}, "FAIL", "no longer finite"),
        ([NAN], {}, "FAIL", "never finite"),
        ([None, None, None], {}, "FAIL", "not finite in its last epoch"),
        ([NAN, None], {}, "FAIL", "never finite"),
        ([0.1, None], {}, "PRUNED", None),
        ([], {}, "WAITING", None),  # it has shown nothing, and may begin in a later session
        ([None, None], {}, "WAITING", None),  # no epoch was due for a validation yet
        ([None], {"error": True}, "FAIL", "the process or machine died"),
        ([], {"fault": "lr is absurd"}, "FAIL", "lr is absurd"),
        ([0.1], {"fault": "the loss is nan"}, "FAIL", "the loss is nan"),
        ([0.1], {"error": True}, "FAIL", "the process or machine died"),
        ([], {"error": True}, "FAIL", "the process or machine died"),
    ],
)
def test_how_a_trial_ends(curve: list[float], more: dict[str, Any], state: str, fault: str | None) -> None:
    ask_tell = new_ledger(epochs=3)
    error = "error" in more
    assert play(ask_tell, curve, {} if error else more, error=error) == state
    (row,) = ask_tell.study.trials
    assert row.state.name == state
    assert (fault in row.user_attrs["fault"]) if fault else "fault" not in row.user_attrs
    finite = {n: v for n, v in enumerate(curve, 1) if v is not None and math.isfinite(v)}
    if "fault" not in more:
        assert row.intermediate_values == finite
    if state == "COMPLETE":
        assert row.value == curve[-1]


def test_a_row_says_where_its_trial_is_and_what_it_reached() -> None:
    ask_tell = new_ledger(epochs=1)
    play(
        ask_tell,
        [0.5],
        {"checkpoint": "/runs/x/trials/000/checkpoint.pt", "trained_seconds": 3.5, "test/miou": 0.4},
    )
    attributes = ask_tell.study.trials[0].user_attrs
    assert attributes["trial_id"] == "t0"
    assert attributes["folder"] == "/runs/x/trials/000"
    assert attributes["checkpoint"] == "/runs/x/trials/000/checkpoint.pt"
    assert attributes["metrics"] == {"epoch": 1, "val/miou": 0.5, "test/miou": 0.4}
    assert attributes["seconds"] == 3.5


def test_a_fault_is_kept_without_the_passwords_in_it() -> None:
    heard: list[Any] = []
    ask_tell = new_ledger(epochs=1)
    ask_tell.watchers = [SimpleNamespace(queue=lambda *a: None, end=lambda *a: heard.append(a))]
    ask_tell.ask("t0")
    assert ask_tell.end(0, {FAULT: "no answer from postgresql://me:secret@host/db"}) == "FAIL"
    assert ask_tell.study.trials[0].user_attrs[FAULT] == "no answer from postgresql://***@host/db"
    assert "secret" not in str(heard)


def test_telling_an_end_twice_changes_nothing() -> None:
    ask_tell = new_ledger(epochs=1)
    play(ask_tell, [0.5])
    assert ask_tell.end(0, {"epoch": 1, "val/miou": 0.9}) == "COMPLETE"
    assert ask_tell.study.trials[0].value == 0.5


def test_no_more_trials_than_wanted() -> None:
    ask_tell = new_ledger(epochs=1, trials=2)
    assert [play(ask_tell, [0.1]), play(ask_tell, [0.2])] == ["COMPLETE"] * 2
    assert ask_tell.ask("third") is None
    assert len(ask_tell.study.trials) == 2


def test_several_objectives_keep_every_value_of_every_epoch() -> None:
    ask_tell = new_ledger(TWO, epochs=2)
    assignment = ask_tell.ask("t")
    assert assignment is not None
    for epoch, value in ((1, 0.1), (2, 0.2)):
        ask_tell.report(0, {"epoch": epoch, "val/miou": value, "student/parameters": 500.0})
    assert ask_tell.end(0) == "COMPLETE"
    (row,) = ask_tell.study.trials
    assert row.values == [0.2, 500.0]
    assert row.intermediate_values == {1: 0.1, 2: 0.2}
    assert values_by_epoch(row, TWO)[1] == {"val/miou": 0.1, "student/parameters": 500.0}


def test_with_several_objectives_one_that_is_missing_fails_the_trial() -> None:
    ask_tell = new_ledger(TWO, epochs=1)
    assert play(ask_tell, [0.3]) == "FAIL"
    assert play(ask_tell, [0.3], {"student/parameters": 500.0}) == "COMPLETE"


def orphaned() -> tuple[optuna.Study, dict[str, Any]]:
    """A study whose driver died while trial 1 was at its second epoch and trial 2 was being asked for."""
    first = new_ledger(epochs=3, trials=4)
    play(first, [0.1, 0.2, 0.3])
    running = first.ask("old")
    assert running is not None
    first.report(1, {"epoch": 1, "val/miou": 0.5})
    first.study.ask()  # without parameters yet
    return first.study, running.parameters


def test_running_rows_are_adopted_under_their_number_and_with_their_parameters() -> None:
    study, parameters = orphaned()
    ask_tell = new_ledger(epochs=3, trials=4, study=study)
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
    ask_tell = new_ledger(epochs=3, trials=4, study=study)
    ask_tell.ask("a")
    history = [[1, {"val/miou": 0.5}], [2, {"val/miou": 0.6}]]
    ask_tell.report(1, {"epoch": 3, "val/miou": 0.7, HISTORY: history, "resumed_from_epoch": 3})
    assert ask_tell.end(1) == "COMPLETE"
    assert study.trials[1].intermediate_values == {1: 0.5, 2: 0.6, 3: 0.7}
    assert study.trials[1].user_attrs["resumed_from_epoch"] == 3


def test_closing_leaves_nothing_running() -> None:
    study, _ = orphaned()
    ask_tell = new_ledger(epochs=3, trials=4, study=study)
    ask_tell.ask("a")
    ask_tell.close()
    assert [row.state.name for row in study.trials] == ["COMPLETE", "PRUNED", "WAITING"]


def test_a_trial_that_never_began_keeps_its_number_and_parameters_for_a_later_session() -> None:
    ask_tell = new_ledger(epochs=1, trials=2)
    first = ask_tell.ask("a")
    assert first is not None
    ask_tell.close()
    later = new_ledger(epochs=1, trials=2, study=ask_tell.study)
    assert later.expected == 2
    again = later.ask("b")
    assert again is not None
    assert (again.number, again.parameters) == (first.number, first.parameters)


def test_a_trial_stopped_before_its_first_validation_goes_on_in_a_later_session() -> None:
    first = new_ledger(epochs=6, trials=1)
    assert play(first, [None, None]) == "WAITING"
    (row,) = first.study.trials
    later = new_ledger(epochs=6, trials=1, study=first.study)
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

    ask_tell = new_ledger(epochs=3, trials=4, study=study, recall=recall)
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
    ask_tell = new_ledger(epochs=3, trials=4, study=study, recall=lambda label, overrides: found)
    ask_tell.ask("a")
    assert ask_tell.end(1) == "PRUNED"
    assert study.trials[1].intermediate_values == {1: 0.5, 2: 0.6}
    ask_tell.ask("b")
    assert ask_tell.end(2, error=True) == "FAIL"


def test_a_repeat_is_named_by_its_trial_and_seed() -> None:
    ask_tell = new_ledger()
    ask_tell.study.enqueue_trial({"train.lr": 1e-3}, user_attrs={REPEAT_OF: 7, SEED: 2})
    assignment = ask_tell.ask("t")
    assert assignment is not None
    assert assignment.label == "007-seed2"
    assert assignment.overrides == {"train.lr": 1e-3, "seed": 2}
    assert assignment.parameters == {"train.lr": 1e-3}


def test_watchers_hear_everything_and_changes_that_must_not_be_lost_are_urgent() -> None:
    heard: list[Any] = []

    class Watcher:
        def queue(self, trial: str, parameters: Any) -> None:
            heard.append(("queue", trial))

        def start(self, trial: str, parameters: Any) -> None:
            heard.append(("start", trial))

        def log(self, trial: str, epoch: int, metrics: Any) -> None:
            heard.append(("log", trial, epoch))

        def end(self, trial: str, state: str, metrics: Any) -> None:
            heard.append(("end", trial, state))

        def close(self) -> None: ...

    ask_tell = new_ledger(epochs=1, watchers=[Watcher()], saved=lambda urgent: heard.append(urgent))
    play(ask_tell, [0.1])
    assert heard == [
        True,
        ("queue", "000"),
        False,
        ("start", "000"),
        ("log", "000", 1),
        False,
        True,
        ("end", "000", "COMPLETE"),
    ]


def test_a_trial_is_queued_until_a_host_takes_it_and_again_when_it_has_lost_it() -> None:
    heard: list[str] = []
    watcher = SimpleNamespace(
        queue=lambda trial, parameters: heard.append(f"queue {trial}"),
        start=lambda trial, parameters: heard.append(f"start {trial}"),
        log=lambda *given: None,
        end=lambda trial, state, metrics: heard.append(f"end {trial}"),
    )
    ask_tell = new_ledger(epochs=2, watchers=[watcher])
    ask_tell.ask("a")
    ask_tell.ask("b")

    def states() -> list[str]:
        return [state_of(row) for row in ask_tell.study.trials]

    assert states() == ["QUEUED", "QUEUED"]
    assert [started(row) for row in ask_tell.study.trials] == [None, None]
    ask_tell.placed(100.0, {"000": 99.0})
    assert states() == ["RUNNING", "QUEUED"]
    ask_tell.report(0, {"epoch": 1, "val/miou": 0.1})
    ask_tell.placed(101.0, {"000": 99.0})  # nothing new
    ask_tell.placed(102.0, {})  # its machine is gone
    assert states() == ["QUEUED", "QUEUED"]
    ask_tell.placed(104.0, {"000": 103.0, "001": 103.0})
    ask_tell.report(1, {"epoch": 1, "val/miou": 0.1, TAKEN: 103.0})
    ask_tell.placed(102.5, {})  # what was seen before it got its host says nothing
    assert states() == ["RUNNING", "RUNNING"]
    assert [started(row) for row in ask_tell.study.trials] == [datetime.fromtimestamp(s) for s in (99.0, 103.0)]
    for number in (0, 1):
        ask_tell.report(number, {"epoch": 2, "val/miou": 0.2})
        ask_tell.end(number)
    assert states() == ["COMPLETE", "COMPLETE"]
    assert heard == [
        "queue 000",
        "queue 001",
        "start 000",
        "queue 000",
        "start 000",
        "start 001",
        "end 000",
        "end 001",
    ]


def test_a_trial_that_no_host_took_waits_for_a_later_session_without_a_begin() -> None:
    ask_tell = new_ledger(epochs=2)
    ask_tell.ask("a")
    ask_tell.report(0, {"epoch": 0, "done": True})  # the search ended before its turn
    assert ask_tell.end(0) == "WAITING"
    assert STARTED not in ask_tell.study.trials[0].user_attrs


def test_rows_of_a_dead_driver_wait_and_older_ones_began_when_they_were_asked_for() -> None:
    study, _ = orphaned()
    older = study.trials[1]
    for attribute in (IN_QUEUE, STARTED):  # as versions before them left it
        older.user_attrs.pop(attribute, None)
    assert (state_of(older), started(older)) == ("RUNNING", older.datetime_start)
    began = started(study.trials[1])
    ask_tell = new_ledger(epochs=3, trials=4, study=study)
    assert [state_of(row) for row in study.trials] == ["COMPLETE", "QUEUED", "QUEUED"]
    ask_tell.ask("again")
    ask_tell.placed(2e9, {"001": 2e9 - 1})
    assert state_of(study.trials[1]) == "RUNNING"
    assert started(study.trials[1]) == began


def stopped_at(ask_tell: AskTell, curve: list[float]) -> int:
    """The epoch at which a trial with this curve is stopped, or its length."""
    assignment = ask_tell.ask("t")
    assert assignment is not None
    for epoch, value in enumerate(curve, 1):
        result = {"epoch": epoch, "val/miou": value, "student/parameters": 1.0}
        ask_tell.report(assignment.number, result)
        if ask_tell.should_stop(assignment.number):
            ask_tell.end(assignment.number, result)
            return epoch
    ask_tell.end(assignment.number)
    return len(curve)


@pytest.mark.parametrize("objectives", [MIOU, TWO], ids=["one", "several"])
@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median", "none"])
def test_schedulers_stop_the_worse_after_the_grace_and_never_at_the_end(scheduler: str, objectives: Any) -> None:
    settings = {"search.scheduler": scheduler, "search.startup_trials": 2, "train.epochs": 9, "search.grace_epochs": 2}
    pruner = make_pruner(load_preset("demo").override({**settings, "search.reduction_factor": 3}))
    ask_tell = new_ledger(objectives, epochs=9, pruner=pruner)
    good = [stopped_at(ask_tell, [0.1 * e for e in range(1, 10)]) for _ in range(3)]
    bad = [stopped_at(ask_tell, [0.01 * e for e in range(1, 10)]) for _ in range(9)]
    assert good == [9, 9, 9]
    assert all(2 <= epoch <= 9 for epoch in bad)
    if scheduler == "none":
        assert bad == [9] * 9
    else:
        assert min(bad) == 2
        assert [row.state.name for row in own_rows(ask_tell.study)].count("PRUNED") >= 2


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median"])
def test_trials_are_stopped_by_the_stop_metric_in_its_own_direction(scheduler: str) -> None:
    settings = {"search.scheduler": scheduler, "search.startup_trials": 2, "train.epochs": 9}
    ask_tell = new_ledger(APART, epochs=9, pruner=make_pruner(load_preset("demo").override(settings)))

    def ends(rmse: float) -> str:
        assignment = ask_tell.ask("t")
        assert assignment is not None
        result: dict[str, Any] = {}
        for epoch in range(1, 10):
            result = {"epoch": epoch, "val/miou": 0.1 * epoch, "val/depth_rmse": rmse - 0.01 * epoch}
            ask_tell.report(assignment.number, result)
            if ask_tell.should_stop(assignment.number):
                break
        return ask_tell.end(assignment.number, result)

    assert [ends(0.3) for _ in range(3)] == ["COMPLETE"] * 3
    states = [ends(0.9) for _ in range(9)]
    assert states.count("PRUNED") >= 2
    stopped = next(row for row in ask_tell.study.trials if row.state.name == "PRUNED")
    last = stopped.last_step
    assert last is not None
    assert stopped.intermediate_values[last] == pytest.approx(0.9 - 0.01 * last)
    assert stopped.value == pytest.approx(0.1 * last)  # what the study calls val/miou
    assert values_by_epoch(stopped, APART)[last] == {"val/miou": stopped.value}


def test_the_median_is_that_of_trials_of_this_search_not_of_a_warm_start() -> None:
    settings = {"search.scheduler": "median", "search.startup_trials": 3, "train.epochs": 9}
    pruner = make_pruner(load_preset("demo").override(settings))
    ask_tell = new_ledger(epochs=9, pruner=pruner)
    for _ in range(20):
        ask_tell.study.add_trial(optuna.trial.create_trial(value=0.5, user_attrs={IMPORTED: "runs/earlier"}))
    good = [0.1 * e for e in range(1, 10)]
    bad = [0.01 * e for e in range(1, 10)]
    assert [stopped_at(ask_tell, curve) for curve in (good, bad, good)] == [9, 9, 9]
    assert stopped_at(ask_tell, bad) == 2


def test_a_resumed_search_stops_by_the_same_rungs() -> None:
    pruner = make_pruner(load_preset("demo").override({"train.epochs": 9, "search.grace_epochs": 2}))
    first = new_ledger(epochs=9, pruner=pruner)
    stopped_at(first, [0.1 * e for e in range(1, 10)])
    again = new_ledger(epochs=9, pruner=pruner, study=first.study)
    assert stopped_at(again, [0.01 * e for e in range(1, 10)]) == 2
