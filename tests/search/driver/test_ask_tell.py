"""What the study is told of trials: states, values by epoch, and how they end."""

from __future__ import annotations

import math
from typing import Any

import pytest

from singer_ray.search.study.schema import (
    REPEAT_OF,
    SEED,
    values_by_epoch,
)
from tests.search.studies import TWO, new_ask_tell, play

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
    ask_tell = new_ask_tell(epochs=3)
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
    ask_tell = new_ask_tell(epochs=1)
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


def test_telling_an_end_twice_changes_nothing() -> None:
    ask_tell = new_ask_tell(epochs=1)
    play(ask_tell, [0.5])
    assert ask_tell.end(0, {"epoch": 1, "val/miou": 0.9}) == "COMPLETE"
    assert ask_tell.study.trials[0].value == 0.5


def test_no_more_trials_than_wanted() -> None:
    ask_tell = new_ask_tell(epochs=1, trials=2)
    assert [play(ask_tell, [0.1]), play(ask_tell, [0.2])] == ["COMPLETE"] * 2
    assert ask_tell.ask("third") is None
    assert len(ask_tell.study.trials) == 2


def test_several_objectives_keep_every_value_of_every_epoch() -> None:
    ask_tell = new_ask_tell(TWO, epochs=2)
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
    ask_tell = new_ask_tell(TWO, epochs=1)
    assert play(ask_tell, [0.3]) == "FAIL"
    assert play(ask_tell, [0.3], {"student/parameters": 500.0}) == "COMPLETE"


def test_a_repeat_is_named_by_its_trial_and_seed() -> None:
    ask_tell = new_ask_tell()
    ask_tell.study.enqueue_trial({"train.lr": 1e-3}, user_attrs={REPEAT_OF: 7, SEED: 2})
    assignment = ask_tell.ask("t")
    assert assignment is not None
    assert assignment.label == "007-seed2"
    assert assignment.overrides == {"train.lr": 1e-3, "seed": 2}
    assert assignment.parameters == {"train.lr": 1e-3}
