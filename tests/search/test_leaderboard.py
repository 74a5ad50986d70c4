"""What a search says about its trials: states, order, and what the study is told."""

from __future__ import annotations

import io
import math
from typing import Any

import optuna
import pandas as pd
import pytest
from rich.console import Console

from singer_ray.config import load_preset
from singer_ray.search.leaderboard import as_rich_table, direction, leaderboard, winners
from singer_ray.search.optuna_search import TruthfulOptunaSearch, trial_state
from singer_ray.search.space import load_space


@pytest.mark.parametrize(
    ("result", "error", "state"),
    [
        ({"epoch": 6, "val/miou": 0.5}, False, "COMPLETE"),
        ({"epoch": 2, "val/miou": 0.5}, False, "PRUNED"),
        ({"epoch": 6, "val/miou": 0.5}, True, "FAIL"),
        ({"epoch": 6, "val/miou": math.nan}, False, "FAIL"),
        ({"epoch": 6}, False, "FAIL"),
        ({"epoch": 2, "val/miou": 0.5, "fault": "the loss is nan"}, False, "FAIL"),
        ({}, False, "FAIL"),
        (None, False, "FAIL"),
    ],
)
def test_state_of_a_trial(result: dict[str, Any] | None, error: bool, state: str) -> None:
    assert trial_state(result, metric="val/miou", epochs=6, error=error) == state


def table(mode: str = "max") -> pd.DataFrame:
    def trial(number: int, epoch: int, value: float | None, **more: Any) -> tuple[dict[str, Any], dict[str, Any], bool]:
        config = {"number": number, "parameters": {"train.lr": number / 10}}
        return config, {"epoch": epoch, **({} if value is None else {"val/miou": value}), **more}, False

    rows = [
        trial(0, 2, 0.9), trial(1, 6, 0.3), trial(2, 6, 0.4, **{"test/miou": 0.39}),
        trial(3, 1, None, fault="diverged"), trial(4, 6, 0.2, resumed_from_epoch=2),
    ]  # fmt: skip
    return leaderboard(rows, metric="val/miou", mode=mode, epochs=6)


def test_finished_trials_come_first_then_stopped_then_failed() -> None:
    assert table()["id"].tolist() == ["002", "001", "004", "000", "003"]
    assert table("min")["id"].tolist() == ["004", "001", "002", "000", "003"]
    assert table()["state"].tolist() == ["COMPLETE", "COMPLETE", "COMPLETE", "PRUNED", "FAIL"]


def test_what_is_missing_is_missing_not_zero() -> None:
    row = table().iloc[-1]
    assert math.isnan(row["val/miou"])
    assert row["fault"] == "diverged"
    assert table()["resumed_from_epoch"].isna().tolist() == [True, True, False, True, True]


def test_the_table_on_a_terminal_names_metric_and_parameters() -> None:
    screen = io.StringIO()
    Console(file=screen, width=160).print(as_rich_table(table(), "val/miou", title="a title"))
    shown = screen.getvalue()
    assert all(word in shown for word in ("a title", "val/miou", "test/miou", "lr", "002", "COMPLETE", "0.39"))
    assert "nan" not in shown


@pytest.mark.parametrize(
    ("metric", "mode"),
    [("val/miou", "max"), ("val/depth_rmse", "min"), ("student/max_median_norm/2", "min"), ("val/linear_top1", "max")],
)
def test_direction_follows_the_metric(metric: str, mode: str) -> None:
    assert direction(metric, "auto") == mode
    assert direction(metric, "max") == "max"


def test_the_study_is_told_what_happened() -> None:
    space = load_space({"train.lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2}}, load_preset("demo"))
    storage = optuna.storages.InMemoryStorage()
    searcher = TruthfulOptunaSearch(
        space=space, metric="val/miou", mode="max", epochs=3, study_name="s", storage=storage,
        sampler=optuna.samplers.RandomSampler(seed=0),
    )  # fmt: skip
    suggested = {name: searcher.suggest(name) for name in ("done", "stopped", "nan", "fault", "crash")}
    for epoch in (1, 2):
        searcher.on_trial_result("done", {"epoch": epoch, "val/miou": epoch / 10})
    searcher.on_trial_complete("done", {"epoch": 3, "val/miou": 0.3})
    searcher.on_trial_complete("done", {"epoch": 3, "val/miou": 0.9})  # Tune may say it twice
    searcher.on_trial_complete("stopped", {"epoch": 1, "val/miou": 0.05})
    searcher.on_trial_result("nan", {"epoch": 1, "val/miou": math.nan})
    searcher.on_trial_complete("nan", {"epoch": 3, "val/miou": math.nan})
    searcher.on_trial_complete("fault", {"epoch": 1, "fault": "the loss is nan"})
    searcher.on_trial_complete("crash", None, error=True)
    rows = optuna.load_study(study_name="s", storage=storage).trials
    assert [row.state.name for row in rows] == ["COMPLETE", "PRUNED", "FAIL", "FAIL", "FAIL"]
    assert rows[0].value == 0.3
    assert rows[0].intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3}
    assert rows[1].intermediate_values == {1: 0.05}
    assert rows[2].intermediate_values == {}
    assert rows[3].user_attrs["fault"] == "the loss is nan"
    assert [row.user_attrs["trial_id"] for row in rows] == list(suggested)
    first = suggested["done"]
    assert first == {"number": 0, "parameters": rows[0].params}


def test_the_winner_of_each_refiner_is_its_best_trial() -> None:
    def trial(number: int, refiner: str, value: float, **parameters: Any) -> tuple[Any, Any, bool]:
        config = {"number": number, "parameters": {"method.refiner": refiner, **parameters}}
        return config, {"epoch": 6, "val/miou": value}, False

    rows = [
        trial(0, "none", 0.2), trial(1, "clip", 0.5, **{"method.clip.ratio": 1.5}), trial(2, "none", 0.3),
        trial(3, "singer", 0.4, **{"method.rank": 8}),
    ]  # fmt: skip
    best = winners(leaderboard(rows, metric="val/miou", mode="max", epochs=6), "method.refiner")
    assert best["id"].tolist() == ["001", "003", "002"]
    assert best["method.rank"].dtype == "Int64"
    screen = io.StringIO()
    Console(file=screen, width=160).print(as_rich_table(best[best["id"] == "002"], "val/miou", title="t"))
    assert "ratio" not in screen.getvalue()  # a plain student has none
