"""Who hears of trials that are queued, taken by a host, report and end."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from singer_ray.search.study.schema import (
    FAULT,
    STARTED,
    TAKEN,
    started,
    state_of,
)
from singer_ray.tracking.callback import Callback
from tests.search.studies import new_ask_tell, play


class Heard(Callback):
    """Writes down what it is told."""

    def __init__(self, heard: list[Any]) -> None:
        self.heard = heard

    def on_trial_queued(self, trial: str, parameters: Mapping[str, Any]) -> None:
        self.heard.append(("queued", trial))

    def on_trial_start(self, trial: str, parameters: Mapping[str, Any]) -> None:
        self.heard.append(("start", trial))

    def on_epoch_end(self, trial: str, epoch: int, metrics: Mapping[str, Any]) -> None:
        self.heard.append(("epoch", trial, epoch))

    def on_trial_end(self, trial: str, state: str, metrics: Mapping[str, Any]) -> None:
        self.heard.append(("end", trial, state, metrics.get(FAULT)))


def test_callbacks_hear_everything_and_changes_that_must_not_be_lost_are_urgent() -> None:
    heard: list[Any] = []

    ask_tell = new_ask_tell(epochs=1, callbacks=[Heard(heard)], saved=lambda urgent: heard.append(urgent))
    play(ask_tell, [0.1])
    assert heard == [
        True,
        ("queued", "000"),
        False,
        ("start", "000"),
        ("epoch", "000", 1),
        False,
        True,
        ("end", "000", "COMPLETE", None),
    ]


def test_a_trial_is_queued_until_a_host_takes_it_and_again_when_it_has_lost_it() -> None:
    heard: list[Any] = []
    ask_tell = new_ask_tell(epochs=2, callbacks=[Heard(heard)])
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
    assert [(what, trial) for what, trial, *_ in heard if what != "epoch"] == [
        ("queued", "000"),
        ("queued", "001"),
        ("start", "000"),
        ("queued", "000"),
        ("start", "000"),
        ("start", "001"),
        ("end", "000"),
        ("end", "001"),
    ]


def test_a_trial_that_no_host_took_waits_for_a_later_session_without_a_begin() -> None:
    ask_tell = new_ask_tell(epochs=2)
    ask_tell.ask("a")
    ask_tell.report(0, {"epoch": 0, "done": True})  # the search ended before its turn
    assert ask_tell.end(0) == "WAITING"
    assert STARTED not in ask_tell.study.trials[0].user_attrs


def test_a_fault_is_kept_without_the_passwords_in_it() -> None:
    heard: list[Any] = []
    ask_tell = new_ask_tell(epochs=1)
    ask_tell.callbacks = [Heard(heard)]
    ask_tell.ask("t0")
    assert ask_tell.end(0, {FAULT: "no answer from postgresql://me:secret@host/db"}) == "FAIL"
    assert ask_tell.study.trials[0].user_attrs[FAULT] == "no answer from postgresql://***@host/db"
    assert "secret" not in str(heard)
