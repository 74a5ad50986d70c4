"""What a trial's actor tells of its way, with hosts and gauges that are played."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from singer_ray.search.study.schema import REMARK, TAKEN
from singer_ray.search.watch.prometheus import QUEUED
from singer_ray.search.workers import trainable as trials
from singer_ray.search.workers.trainable import DistillationTrial


class Played:
    """An actor's handle: `remote` answers at once, and `ray.get` gives the answer."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *given: self.answers[name](*given))


def started(monkeypatch: pytest.MonkeyPatch, places: list[str | None]) -> tuple[DistillationTrial, list[Any]]:
    """A trial whose registry gives these places one after the other."""
    told: list[Any] = []
    registry = Played(place=lambda label: places.pop(0))
    host = Played(
        ping=lambda: None,
        join=lambda key, overrides: None,
        epoch=lambda key: {"epoch": 1, "val/miou": 0.5},
    )
    monkeypatch.setattr("ray.get", lambda answer: answer)
    monkeypatch.setattr("ray.get_actor", lambda name, space: registry if name == "registry" else host)
    monkeypatch.setattr(trials, "POLL", 0.0)
    gauges = SimpleNamespace(set=lambda result: told.append(dict(result)), remark=None)
    monkeypatch.setattr(trials, "TrialGauges", lambda *given: gauges)
    trial = object.__new__(DistillationTrial)
    config: Mapping[str, Any] = {
        "registry": "registry",
        "label": "000",
        "parameters": {},
        "overrides": {},
        "epochs": 2,
        "experiment": "x",
    }
    trial.setup(dict(config))
    return trial, told


def test_a_trial_is_queued_until_it_has_a_host_and_says_since_when_it_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    trial, told = started(monkeypatch, [None, None, "host-1"])
    monkeypatch.setattr("time.time", lambda: 1234.5)
    result = trial.step()
    assert told == [{QUEUED: 1}, {QUEUED: 0}, {"epoch": 1, "val/miou": 0.5}]
    assert (result["epoch"], result["done"], result[TAKEN]) == (1, False, 1234.5)
    assert REMARK not in result
    trial.gauges.remark = "the metrics are left out"
    assert trial.step()[REMARK] == "the metrics are left out"


def test_a_trial_that_the_search_ends_before_it_has_a_host_was_never_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    trial, told = started(monkeypatch, [None, ""])
    result = trial.step()
    assert (result["epoch"], result["done"]) == (0, True)
    assert TAKEN not in result
    assert {QUEUED: 0} not in told
