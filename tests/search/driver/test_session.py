"""A session from its first trial to its last: what ends it, what it leaves, and what the next one makes of it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from singer_ray.nodes import ray_cluster
from singer_ray.search.driver import session as sessions
from singer_ray.search.state import heartbeat
from singer_ray.search.study.running import Assignment
from singer_ray.search.study.schema import REPEATS
from tests.search.fake_session import Killed, Search, rising

RATES = {"train.lr": {"type": "choice", "values": [1e-3, 2e-3, 3e-3, 4e-3, 5e-3]}}


def best_first(assignment: Assignment, epoch: int) -> Mapping[str, Any]:
    return {"val/miou": 0.9 - 0.1 * assignment.number}


def later_is_better(assignment: Assignment, epoch: int) -> Mapping[str, Any]:
    return {"val/miou": 0.5 + 0.1 * assignment.number}


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"search.time_budget": 95.0}, "100 s are used up, search.time_budget is 95 s"),
        ({"search.gpu_hours": 95 / 3600}, "0.0278 GPU-hours are used up, search.gpu_hours is 0.0263889"),
        ({"search.money": 95.0}, "$100.00 are spent, search.money is $95"),
    ],
)
def test_what_is_used_up_ends_the_trials(limits: dict[str, Any], reason: str, tmp_path: Path) -> None:
    search = Search(tmp_path / "x", {"search.trials": 50, **limits})
    table = search.run()
    assert table["state"].tolist() == search.states() == ["COMPLETE"] * 4 + ["PRUNED"] * 2
    assert search.record["end"] == f"stopped: {reason}"
    assert search.record["end"] in search.screen.getvalue()


def test_a_budget_too_short_for_any_trial_ends_with_an_empty_table(tmp_path: Path) -> None:
    search = Search(tmp_path / "x", {"search.trials": 3, "search.time_budget": 10.0})
    search.record["sessions"] = [{"begin": 0.0, "end": 11.0, "gpu_hours": 0.0, "money": None}]
    assert search.run().empty
    assert search.states() == []
    assert pd.read_parquet(search.out / "leaderboard.parquet").columns[0] == "rank"
    assert "stopped: 11 s are used up, search.time_budget is 10 s" in search.screen.getvalue()


def test_a_target_ends_the_search_with_the_trial_that_reaches_it(tmp_path: Path) -> None:
    search = Search(tmp_path / "x", {"search.trials": 50, "search.target": 0.65})
    table = search.run(later_is_better)
    assert table["id"].tolist() == ["002", "001", "000", "003"]
    assert search.states() == ["COMPLETE", "COMPLETE", "COMPLETE", "PRUNED"]
    assert search.record["end"] == "stopped: trial 002 has val/miou 0.7, search.target is 0.65"


def test_a_plateau_lets_the_trials_that_run_finish_and_starts_none(tmp_path: Path) -> None:
    search = Search(tmp_path / "x", {"search.trials": 50, "search.plateau_trials": 4})
    search.run(best_first)
    assert search.states() == ["COMPLETE"] * 6
    assert "gained nothing over the last 4 finished trials" in search.record["end"]


def test_a_grid_ends_when_every_point_was_tried_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    search = Search(tmp_path / "x", {"search.trials": 3, "search.sampler": "grid"}, space=RATES)
    search.run()
    said = "the grid has 5 points, and search.trials 3 leaves 2 of them out: --trials 5 tries each"
    assert said in search.screen.getvalue()
    assert search.screen.getvalue().index(said) < search.screen.getvalue().index("trial 000 started")
    search.screen.truncate(0)
    assert sorted(search.run(changes={"search.trials": 50})["train.lr"]) == RATES["train.lr"]["values"]
    assert "the grid has" not in search.screen.getvalue()


@pytest.mark.parametrize("sampler", ["gp", "tpe"])
def test_a_sampler_that_learns_from_finished_trials_only_says_so(sampler: str, tmp_path: Path) -> None:
    search = Search(tmp_path / "x", {"search.trials": 1, "search.sampler": sampler, "search.scheduler": "asha"})
    search.run()
    said = f"{sampler} learns only from trials that finish, and asha stops others before" in search.screen.getvalue()
    assert said == (sampler == "gp")


@pytest.mark.parametrize(
    "limits", [{"search.time_budget": 75.0}, {"search.gpu_hours": 75 / 3600}, {"search.money": 75.0}]
)
def test_repeats_end_with_the_budget_but_not_by_the_target(limits: dict[str, Any], tmp_path: Path) -> None:
    settings = {"search.trials": 2, "search.repeats": 4, "search.repeat_top": 2, "search.target": 0.6, **limits}
    search = Search(tmp_path / "x", settings)
    table = search.run(later_is_better)
    assert search.states(REPEATS) == ["COMPLETE"] * 2 + ["WAITING"] * 4
    (limit,) = limits
    assert limit in search.record["end"]
    assert table["seeds"].tolist() == [3, 1]
    # A budget that is spent starts nothing, and what was repeated still decides.
    assert search.run(later_is_better).equals(table)
    assert search.now == 1080.0
    search.run(later_is_better, {limit: 0.0})
    assert search.states(REPEATS) == ["COMPLETE"] * 6


def test_a_driver_that_dies_in_the_repeats_leaves_a_session_that_names_the_same_winner(tmp_path: Path) -> None:
    """Trial 000 leads by luck. Its repeats are bad; the last of the others is cut off by the driver's end."""
    search = Search(tmp_path / "x", {"search.trials": 2, "search.repeats": 3, "search.repeat_top": 2})

    def curve(assignment: Assignment, epoch: int) -> Mapping[str, Any]:
        if assignment.label == "001-seed2" and epoch == 2:
            raise Killed
        return {"val/miou": {"000": 0.9, "000-seed1": 0.1, "000-seed2": 0.1}.get(assignment.label, 0.5)}

    with pytest.raises(Killed):
        search.run(curve)
    assert "RUNNING" in search.states(REPEATS)
    table = search.run(curve, {"search.time_budget": 1.0})
    assert table["id"].tolist() == ["001", "000"]
    assert table["seeds"].tolist() == [2, 3]
    assert search.states(REPEATS) == ["COMPLETE"] * 3 + ["PRUNED"]
    assert search.run(curve, {"search.time_budget": 1.0}).equals(table)


def test_repeats_that_were_cut_off_go_on_under_their_numbers(tmp_path: Path) -> None:
    settings = {"search.trials": 2, "search.repeats": 3, "search.repeat_top": 2}
    whole, cut = Search(tmp_path / "whole", settings), Search(tmp_path / "cut", settings)

    def curve(assignment: Assignment, epoch: int) -> Mapping[str, Any]:
        return {"val/miou": 0.5 + 0.01 * epoch + 0.1 * assignment.number * (assignment.seed or 0)}

    def killed(assignment: Assignment, epoch: int) -> Mapping[str, Any]:
        if assignment.label == "001-seed1" and epoch == 2:
            raise Killed
        return curve(assignment, epoch)

    expected = whole.run(curve)
    with pytest.raises(Killed):
        cut.run(killed)
    assert cut.run(curve).equals(expected)
    assert cut.states(REPEATS) == ["COMPLETE"] * 4


def test_a_limit_before_the_first_validation_fails_no_trial(tmp_path: Path) -> None:
    search = Search(tmp_path / "x", {"search.trials": 2, "train.epochs": 9, "search.time_budget": 55.0})

    def curve(assignment: Assignment, epoch: int) -> Mapping[str, Any]:
        return rising(assignment, epoch) if epoch % 5 == 0 or epoch == 9 else {}

    assert search.run(curve).empty
    assert search.states() == ["WAITING", "WAITING"]
    assert "trial 000 WAITING after 3 epochs" in search.screen.getvalue()
    assert search.run(curve, {"search.time_budget": 0.0})["state"].tolist() == ["COMPLETE"] * 2


def test_what_is_spent_is_on_record_while_a_trial_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "EVERY", 0.01)
    search = Search(tmp_path / "x", {"search.trials": 1})
    record: dict[str, Any] = {}

    def curve(assignment: Assignment, epoch: int) -> Mapping[str, Any]:
        deadline = time.monotonic() + 20
        while record.get("seconds") != 10.0:
            assert time.monotonic() < deadline, "the record stands still"
            time.sleep(0.01)
            record.update(json.loads((search.out / "search.json").read_text()))
        raise Killed

    with pytest.raises(Killed):
        search.run(curve)
    assert (record["money"], record["gpu_hours"]) == (10.0, round(10 / 3600, 4))
    assert record["sessions"][-1]["end"] == search.now


def test_a_value_stays_on_screen_in_epochs_without_a_validation(tmp_path: Path) -> None:
    search = Search(tmp_path / "x", {"search.trials": 1, "train.epochs": 4, "search.time_budget": 30.0})
    search.run(lambda assignment, epoch: {"val/miou": 0.375} if epoch == 2 else {})
    (line,) = [line for line in search.screen.getvalue().splitlines() if "epoch 3/4" in line]
    assert "val/miou" not in line  # nothing new
    assert "trial 000 PRUNED after 3 epochs. 1 of 1 trials: 1 pruned, best val/miou 0.375" in search.screen.getvalue()


def test_machines_that_join_or_leave_are_said_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "STEADY", 0.0)
    monkeypatch.setattr(ray_cluster, "describe", lambda: "a cluster")
    search = Search(tmp_path / "x", {"search.trials": 1})
    session = search._session(search.config, rising)
    for size in (2, 2, 4, 4, 0, 1):
        session._follow(SimpleNamespace(size=lambda n=size: n))  # type: ignore[arg-type]
    assert search.screen.getvalue().splitlines() == [
        f"{trials} at a time from now on, on a cluster" for trials in ("4 trials", "0 trials", "1 trial")
    ]
    now = session.meter.record()["sessions"][-1]
    assert (now["concurrent"], now["gpus"], session.gpus) == (1, 0.5, 0.5)
    monkeypatch.setattr(sessions, "STEADY", 60.0)
    session._follow(SimpleNamespace(size=lambda: 9))  # type: ignore[arg-type]
    assert session.concurrent == 1  # a host that died, and is back in a moment
