"""Which trials the pruner ends, and when."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from singer_ray.config import load_preset
from singer_ray.search.driver.ask_tell import AskTell
from singer_ray.search.strategy.pruners import make_pruner
from singer_ray.search.study.schema import (
    IMPORTED,
    own_rows,
    values_by_epoch,
)
from tests.search.studies import APART, MIOU, TWO, new_ask_tell


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
    ask_tell = new_ask_tell(objectives, epochs=9, pruner=pruner)
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
    ask_tell = new_ask_tell(APART, epochs=9, pruner=make_pruner(load_preset("demo").override(settings)))

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
    ask_tell = new_ask_tell(epochs=9, pruner=pruner)
    for _ in range(20):
        ask_tell.study.add_trial(optuna.trial.create_trial(value=0.5, user_attrs={IMPORTED: "runs/earlier"}))
    good = [0.1 * e for e in range(1, 10)]
    bad = [0.01 * e for e in range(1, 10)]
    assert [stopped_at(ask_tell, curve) for curve in (good, bad, good)] == [9, 9, 9]
    assert stopped_at(ask_tell, bad) == 2


def test_a_resumed_search_stops_by_the_same_rungs() -> None:
    pruner = make_pruner(load_preset("demo").override({"train.epochs": 9, "search.grace_epochs": 2}))
    first = new_ask_tell(epochs=9, pruner=pruner)
    stopped_at(first, [0.1 * e for e in range(1, 10)])
    again = new_ask_tell(epochs=9, pruner=pruner, study=first.study)
    assert stopped_at(again, [0.01 * e for e in range(1, 10)]) == 2
