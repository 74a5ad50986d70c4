"""Whole searches on a real Ray cluster."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import timm
import torch
from rich.console import Console
from safetensors.torch import load_file

from singer_ray.config import load_preset
from singer_ray.distillation import run_distillation
from singer_ray.errors import UserError
from singer_ray.nodes import ray_cluster
from singer_ray.search.driver import session
from singer_ray.search.driver.search import run_search
from singer_ray.search.driver.searched import Searched
from singer_ray.search.strategy.cost import Meter
from singer_ray.search.study.opening import load_study, storage_of
from singer_ray.search.study.schema import REPEATS, values_by_epoch
from tests.search.whole import DIVERGES, SPACE, Listener, rows_by_tune, settings, study_of

pytestmark = pytest.mark.ray

PLANTED = {name: f"planted-{name}" for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")}


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, ray_cluster.connected():
        for name, value in PLANTED.items():
            patch.setenv(name, value)  # of the driver alone: what Ray starts here inherits its environment
        yield


@pytest.fixture(scope="module")
def running() -> list[Any]:
    """The actors that Ray showed in the middle of the search."""
    return []


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, running: list[Any]) -> tuple[Searched, str]:
    import ray
    from ray.util.state import list_actors

    def look() -> None:
        running.extend(list_actors(ray.get_runtime_context().gcs_address, detail=True))

    screen = Listener("epoch 1/3", look)
    config = settings(
        **{
            "search.trials": 4,
            "search.concurrent": 1,
            "search.reduction_factor": 2,
        }
    )
    # One that ends, one that fails, one that is worse, and one that the sampler chooses.
    space = {**SPACE, "enqueue": [{"method.rank": 8, "train.lr": rate} for rate in (4e-3, DIVERGES, 1e-5)]}
    done = run_search(
        config, tmp_path_factory.mktemp("x") / "one", space=space, console=Console(file=screen, width=180)
    )
    return done, screen.getvalue()


def test_trials_end_as_complete_pruned_and_failed(searched: tuple[Searched, str]) -> None:
    table = searched[0].leaderboard
    assert set(table["state"]) == {"COMPLETE", "PRUNED", "FAIL"}
    assert len(table) == 4
    for row in table.to_dict("records"):
        if row["state"] == "FAIL":
            assert row["train.lr"] == DIVERGES
            assert "loss" in row["fault"]
        else:
            assert row["train.lr"] != DIVERGES
            assert row["epochs"] == 3 if row["state"] == "COMPLETE" else row["epochs"] < 3


def test_the_study_agrees_with_tune_row_by_row(searched: tuple[Searched, str]) -> None:
    table = searched[0].leaderboard.set_index("id")
    for row, trial, reported in rows_by_tune(searched[0]).values():
        place = table.loc[f"{trial.config['number']:03d}"]
        assert row.state.name == place["state"]
        assert row.params == trial.config["parameters"]
        assert ("val/miou" in reported) == (place["state"] != "FAIL")
        values = dict(zip(reported["epoch"], reported["val/miou"])) if "val/miou" in reported else {}
        finite = {int(epoch): value for epoch, value in values.items() if value == value}
        assert row.intermediate_values == pytest.approx(finite)
        if place["state"] == "COMPLETE":
            assert row.value == place["val/miou"] == finite[3]
        if place["state"] != "FAIL":
            assert Path(row.user_attrs["checkpoint"]).is_file()
            assert Path(row.user_attrs["checkpoint"]).parent == Path(row.user_attrs["folder"])


@pytest.mark.long
def test_with_several_objectives_too(tmp_path: Path) -> None:
    goals = ("val/miou", "student/parameters:min", "student/artifact_share")
    config = settings(
        **{
            "search.trials": 5,
            "search.concurrent": 2,
            "search.objectives": goals,
            "search.stop_metric": "val/miou",
            "search.reduction_factor": 2,
            "export.top": 1,
        }
    )
    space = {"student.depth": {"type": "int", "low": 2, "high": 4}, "train.lr": SPACE["train.lr"]}
    done = run_search(config, tmp_path / "three", space=space, console=Console(file=io.StringIO()))
    table, names = done.leaderboard.set_index("id"), done.objectives.names
    assert names == ("val/miou", "student/parameters", "student/artifact_share")
    for row, trial, reported in rows_by_tune(done).values():
        place = table.loc[f"{trial.config['number']:03d}"]
        by_epoch = values_by_epoch(row, done.objectives)
        assert row.state.name == place["state"]
        if place["state"] == "FAIL":
            continue
        assert sorted(by_epoch) == reported["epoch"].tolist() == sorted(row.intermediate_values)
        for name in names:
            assert [by_epoch[epoch][name] for epoch in sorted(by_epoch)] == pytest.approx(reported[name].tolist())
        if place["state"] == "COMPLETE":
            assert row.values == [place[name] for name in names]
    finished = table[table["state"] == "COMPLETE"]
    assert table["front"].sum() == len(done.best) >= 1
    best = finished[finished["front"]]["val/miou"].max()
    assert best == finished["val/miou"].max()


@pytest.mark.long
def test_a_grid_tries_what_a_warm_start_has_not_and_trials_stop_by_another_metric(
    searched: tuple[Searched, str], tmp_path: Path
) -> None:
    earlier = searched[0]
    done_before = earlier.leaderboard[earlier.leaderboard["state"] == "COMPLETE"]
    rank = int(done_before["method.rank"].iloc[0])
    config = settings(
        **{
            "search.warm_start": str(earlier.out),
            "search.sampler": "grid",
            "search.concurrent": 1,
            "search.stop_metric": "val/depth_rmse",
            "search.reduction_factor": 2,
        }
    )
    space = {**SPACE, "method.rank": {"type": "int", "low": rank, "high": rank}}
    screen = io.StringIO()
    done = run_search(config, tmp_path / "warm", space=space, console=Console(file=screen, width=200))
    known = sorted(done_before[done_before["method.rank"] == rank]["train.lr"])
    others = len(done_before) - len(known)
    skipped = f", {others} outside today's space skipped" if others else ""
    assert re.search(
        rf"warm start: {len(known)} finished trials of {re.escape(str(earlier.out) + skipped)}(;|$)",
        screen.getvalue(),
        re.MULTILINE,
    )
    rates = done.leaderboard["train.lr"].tolist()
    assert sorted([*known, *rates]) == SPACE["train.lr"]["values"]
    rows = rows_by_tune(done)
    assert len(rows) == len(rates) >= 1
    trained = [(row, reported) for row, _, reported in rows.values() if row.state.name != "FAIL"]
    assert trained
    for row, reported in trained:
        assert list(row.intermediate_values.values()) == pytest.approx(reported["val/depth_rmse"].tolist())
        assert row.value == pytest.approx(reported["val/miou"].iloc[-1])


def test_several_nodes_without_shared_storage_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    one = ray.nodes()
    monkeypatch.setattr(ray, "nodes", lambda: one * 2)
    with pytest.raises(UserError) as caught:
        run_search(settings(), tmp_path / "out", space=SPACE, console=Console(file=io.StringIO()))
    said = str(caught.value)
    assert said.startswith(f"This Ray cluster has 2 nodes, and {tmp_path / 'out'} is on one of them only")
    assert "Use --storage s3://BUCKET/PREFIX, or --storage FOLDER" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_leading_trials_are_repeated_with_other_seeds(tmp_path: Path) -> None:
    config = settings(
        **{
            "search.trials": 3,
            "search.concurrent": 2,
            "search.scheduler": "none",
            "search.repeats": 2,
            "search.repeat_top": 2,
            "train.epochs": 1,
        }
    )
    space = {"train.lr": {"type": "loguniform", "low": 1e-3, "high": 4e-3}}
    done = run_search(config, tmp_path / "again", space=space, console=Console(file=io.StringIO()))
    again = load_study(storage_of(None, done.out), f"{done.out.name}{REPEATS}")
    single = done.leaderboard.sort_values("val/miou", ascending=False)["id"].tolist()[:2]
    assert sorted(f"{row.user_attrs['repeat_of']:03d}" for row in again.trials) == sorted(single)
    assert {row.user_attrs["seed"] for row in again.trials} == {1}
    for row in again.trials:
        alone = config.override({**row.params, "seed": 1})
        assert row.value == run_distillation(alone, tmp_path / f"alone-{row.number}").metrics["val/miou"]
    assert done.leaderboard["seeds"].tolist()[:2] == [2, 2]
    assert done.leaderboard["mean"][0] >= done.leaderboard["mean"][1]


def test_the_leaderboard_is_written_twice_alike(searched: tuple[Searched, str]) -> None:
    done = searched[0]
    parquet = pd.read_parquet(done.out / "leaderboard.parquet")
    csv = pd.read_csv(done.out / "leaderboard.csv", dtype={"id": str})
    assert list(parquet.columns) == list(csv.columns)
    assert {"rank", "id", "state", "method.rank", "val/miou", "test/miou", "epochs", "seconds"} <= set(parquet.columns)
    assert parquet["val/miou"].tolist() == pytest.approx(csv["val/miou"].tolist(), nan_ok=True)
    assert parquet["rank"].tolist() == list(range(1, 5))


def test_the_best_students_load_with_timm(searched: tuple[Searched, str]) -> None:
    done = searched[0]
    complete = done.leaderboard[done.leaderboard["state"] == "COMPLETE"]
    assert [f.name for f in done.best] == [f"{r}-{i}" for r, i in zip(complete["rank"], complete["id"])][:3]
    for folder, (_, row) in zip(done.best, complete.iterrows()):
        model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        assert torch.isfinite(model(torch.rand(2, 3, 32, 32))).all()
        result = json.loads((folder / "result.json").read_text())
        assert result["metrics"]["val/miou"] == row["val/miou"]
        assert result["metrics"]["test/miou"] == row["test/miou"]
        assert result["config"]["method"]["rank"] == row["method.rank"]
        assert load_preset(str(folder / "config.yaml")).train.lr == row["train.lr"]


def test_lines_say_what_happens(searched: tuple[Searched, str]) -> None:
    screen = searched[1]
    assert "trial 000 started: method.rank" in screen
    assert "trial 000 epoch 1/3: val/miou 0." in screen
    assert "FAIL after 0 epochs (" in screen
    assert "4 of 4 trials: " in screen
    assert "Traceback" not in screen


def test_the_dashboard_shows_running_trials_by_their_parameters(
    searched: tuple[Searched, str], running: list[Any]
) -> None:
    first = study_of(searched[0]).trials[0].params
    shown = {actor.repr_name for actor in running if actor.class_name == "DistillationTrial" and actor.repr_name}
    assert f"trial 000 rank={first['method.rank']} lr={first['train.lr']:.3g}" in shown


def test_a_trial_needs_no_torch() -> None:
    check = "import sys, singer_ray.search.workers.trainable; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_no_log_of_ray_holds_a_key(searched: tuple[Searched, str]) -> None:
    from ray._private import worker

    node: Any = worker._global_node
    files = [path for path in Path(node.get_session_dir_path()).rglob("*") if path.is_file()]
    assert any(path.name == "runtime_env_agent.log" for path in files)
    assert [path.name for path in files if b"planted-" in path.read_bytes()] == []


@pytest.mark.long
def test_a_trial_whose_host_died_goes_on_from_its_checkpoint_to_the_same_end(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import ray

    def kill_hosts() -> None:
        for actor in ray.util.list_named_actors(all_namespaces=True):
            if "-host-" in actor["name"]:
                ray.kill(ray.get_actor(actor["name"], actor["namespace"]), no_restart=False)

    config = settings(**{"search.trials": 1, "search.concurrent": 1, "search.max_failures": 1})  # a death counts once
    space = {"train.lr": {"type": "loguniform", "low": 1e-3, "high": 4e-3}}
    whole = run_search(config, tmp_path / "whole", space=space, console=Console(file=io.StringIO()))
    screen = Listener("epoch 2/3", kill_hosts)
    cut = run_search(config, tmp_path / "cut", space=space, console=Console(file=screen, width=180))
    assert screen.heard
    (line,) = [line for line in screen.getvalue().splitlines() if "goes on from" in line]
    assert line == "trial 000: the process or machine died; it goes on from its last epoch"
    assert "Traceback" not in "".join(capfd.readouterr())
    row, other = (done.leaderboard.iloc[0] for done in (cut, whole))
    assert (row["state"], row["epochs"]) == ("COMPLETE", 3)
    assert row["resumed_from_epoch"] in (1, 2)
    assert pd.isna(other["resumed_from_epoch"])
    assert row["val/miou"] == other["val/miou"]
    first, second = (load_file(done.best[0] / "model.safetensors") for done in (cut, whole))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.long
def test_a_time_budget_stops_trials_and_the_best_of_them_still_gives_a_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The clock jumps when the first epoch has been shown: how long a machine takes to come so far is not the claim.
    late = [0.0]
    monkeypatch.setattr(session, "Meter", partial(Meter, clock=lambda: time.time() + late[0]))
    config = settings(**{"search.trials": 2, "search.concurrent": 1, "search.time_budget": 9e4, "train.epochs": 500})
    space = {"train.lr": {"type": "loguniform", "low": 1e-3, "high": 4e-3}}
    screen = Listener("epoch 1/500", lambda: late.append(late.pop() + 1e5))
    done = run_search(config, tmp_path / "short", space=space, console=Console(file=screen, width=180))
    assert screen.heard
    assert set(done.leaderboard["state"]) == {"PRUNED"}
    # What never began waits for a later session; the others are what the table says.
    states = [row.state.name for row in study_of(done).trials if row.state.name != "WAITING"]
    assert states == done.leaderboard.sort_values("id")["state"].tolist()
    result = json.loads((done.best[0] / "result.json").read_text())
    assert 0 <= result["metrics"]["test/miou"] <= 1
    # Its checkpoint may be an epoch ahead of what was reported when it was stopped.
    assert result["epochs"] - done.leaderboard.iloc[0]["epochs"] in (0, 1)
    if result["epochs"] == done.leaderboard.iloc[0]["epochs"]:
        assert result["metrics"]["val/miou"] == pytest.approx(done.leaderboard.iloc[0]["val/miou"])


@pytest.mark.long
@pytest.mark.parametrize(
    ("changed", "space", "said"),
    [
        ({"search.objectives": ("val/mio",)}, SPACE, "'val/mio' is never reported. Did you mean val/miou?"),
        ({"search.cpus_per_trial": 999.0}, SPACE, "can never offer room for more than 0. Lower"),
        ({"teacher.name": "vit_tiny_patch16_22"}, SPACE, "vit_tiny_patch16_224"),
        ({}, {"method.rank": {"type": "int", "low": 4, "high": 4000}}, "reaches what cannot be built"),
        ({}, {"student.heads": {"type": "choice", "values": [3, 5]}}, "reaches what cannot be built"),
    ],
)
def test_what_cannot_run_is_refused_before_the_first_trial(
    changed: dict[str, Any], space: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        run_search(settings(**changed), tmp_path / "out", space=space, console=Console(file=io.StringIO()))
    assert said in str(caught.value)
    assert not (tmp_path / "out").exists()
