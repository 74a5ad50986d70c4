"""The table of a search: order, columns, winners."""

from __future__ import annotations

import io
import math

import optuna
import pandas as pd
from rich.console import Console

from singer_ray.search.study.leaderboard import as_rich_table, heads, leaderboard, winners
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.schema import REPEAT_OF, SEED
from tests.search.studies import MIOU, TWO, new_ask_tell, play

LOW = Objectives(("val/miou",), ("min",), "val/miou", "min")


def table(objectives: Objectives = MIOU) -> pd.DataFrame:
    ask_tell = new_ask_tell(objectives)
    play(ask_tell, [0.5, 0.9])
    play(ask_tell, [0.3] * 6)
    play(ask_tell, [0.4] * 6, {"test/miou": 0.39})
    play(ask_tell, [], {"fault": "diverged"})
    play(ask_tell, [0.2] * 6, {"resumed_from_epoch": 2})
    return leaderboard(ask_tell.study, objectives)


def test_finished_trials_come_first_then_stopped_then_failed() -> None:
    assert table()["id"].tolist() == ["002", "001", "004", "000", "003"]
    assert table(LOW)["id"].tolist() == ["004", "001", "002", "000", "003"]
    assert table()["state"].tolist() == ["COMPLETE", "COMPLETE", "COMPLETE", "PRUNED", "FAIL"]


def test_what_is_missing_is_missing_not_zero() -> None:
    row = table().iloc[-1]
    assert math.isnan(row["val/miou"])
    assert row["fault"] == "diverged"
    assert table()["resumed_from_epoch"].isna().tolist() == [True, True, False, True, True]
    assert table()["epochs"].tolist() == [6, 6, 6, 2, 0]


def test_the_table_on_a_terminal_names_metric_and_parameters() -> None:
    screen = io.StringIO()
    Console(file=screen, width=160).print(as_rich_table(table(), MIOU, title="a title"))
    shown = screen.getvalue()
    assert all(word in shown for word in ("a title", "val/miou", "test/miou", "lr", "002", "COMPLETE", "0.39"))
    assert "nan" not in shown


def test_an_empty_study_gives_an_empty_table() -> None:
    empty = leaderboard(new_ask_tell().study, MIOU)
    assert empty.empty
    assert list(empty.columns)[:3] == ["rank", "id", "state"]


def test_several_objectives_put_the_front_first() -> None:
    ask_tell = new_ask_tell(TWO, epochs=1)
    for miou, size in ((0.3, 10.0), (0.5, 30.0), (0.4, 40.0), (0.2, 20.0)):
        play(ask_tell, [miou], {"student/parameters": size})
    found = leaderboard(ask_tell.study, TWO)
    assert found["id"].tolist() == ["001", "000", "002", "003"]
    assert found["front"].tolist() == [True, True, False, False]
    assert found["student/parameters"].tolist() == [30.0, 10.0, 40.0, 20.0]
    screen = io.StringIO()
    Console(file=screen, width=160).print(as_rich_table(found, TWO, title="t"))
    assert "front" in screen.getvalue()


def test_repeated_trials_are_ranked_by_their_mean() -> None:
    ask_tell = new_ask_tell(epochs=1)
    for value in (0.50, 0.49, 0.48):
        play(ask_tell, [value])
    again = new_ask_tell(epochs=1)
    for number, values in ((0, (0.40, 0.42)), (1, (0.47, 0.48))):
        for seed, value in enumerate(values, 1):
            lr = ask_tell.study.trials[number].params
            again.study.enqueue_trial(lr, user_attrs={REPEAT_OF: number, SEED: seed})
            play(again, [value])
    found = leaderboard(ask_tell.study, MIOU, repeats=again.study)
    assert found["id"].tolist() == ["001", "000", "002"]
    assert found["mean"].tolist()[:2] == [(0.49 + 0.47 + 0.48) / 3, (0.50 + 0.40 + 0.42) / 3]
    assert math.isclose(found["spread"][0], 0.01)
    assert found["seeds"].tolist()[:2] == [3, 3]
    assert found["seeds"].isna().tolist() == [False, False, True]


def test_the_winner_of_each_refiner_is_its_best_trial() -> None:
    space = {
        "method.refiner": {"type": "choice", "values": ["none", "clip", "singer"]},
        "method.clip.ratio": {"type": "uniform", "low": 1.0, "high": 2.0, "when": {"method.refiner": "clip"}},
        "method.rank": {"type": "int", "low": 4, "high": 8, "when": {"method.refiner": "singer"}},
    }
    ask_tell = new_ask_tell(epochs=1, space=space)
    for refiner, value in (("none", 0.2), ("clip", 0.5), ("none", 0.3), ("singer", 0.4)):
        ask_tell.study.enqueue_trial({"method.refiner": refiner})
        play(ask_tell, [value])
    best = winners(leaderboard(ask_tell.study, MIOU), "method.refiner")
    assert best["id"].tolist() == ["001", "003", "002"]
    assert best["method.rank"].dtype == "Int64"
    screen = io.StringIO()
    Console(file=screen, width=160).print(as_rich_table(best[best["id"] == "002"], MIOU, title="t"))
    assert "ratio" not in screen.getvalue()  # a plain student has none


def test_warm_start_rows_are_not_trials_of_this_search() -> None:
    ask_tell = new_ask_tell(epochs=1)
    ask_tell.study.add_trial(
        optuna.create_trial(
            value=0.9,
            params={"train.lr": 1e-3},
            user_attrs={"imported_from": "runs/earlier"},
            distributions={"train.lr": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)},
        )
    )
    play(ask_tell, [0.5])
    assert leaderboard(ask_tell.study, MIOU)["id"].tolist() == ["001"]


def test_heads_say_which_parameter_it_is() -> None:
    names = ["method.rank", "method.loss.outlier", "train.lr", "method.prefit.lr", "method.clip.ratio", "student.depth"]
    assert heads(names) == {
        "method.rank": "method.rank",
        "method.loss.outlier": "loss.outlier",
        "train.lr": "train.lr",
        "method.prefit.lr": "method.prefit.lr",
        "method.clip.ratio": "clip.ratio",
        "student.depth": "depth",
    }
