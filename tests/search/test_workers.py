"""Searches whose trials train in two workers each, on a real Ray cluster."""

from __future__ import annotations

import io
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from singer_ray.config import Config, load_preset
from singer_ray.distillation import run_distillation
from singer_ray.errors import UserError
from singer_ray.search.driver.search import run_search
from singer_ray.search.driver.searched import Searched
from singer_ray.search.study.opening import load_study, storage_of
from singer_ray.search.workers.resources import ResourcePlan
from singer_ray.training import checkpoint
from tests.conftest import SMALL

pytestmark = pytest.mark.ray

CPUS = 4
APART = ("epoch", "images_per_second", "data_wait_share")
"""What a run reports otherwise, and what the clock says."""
SPACE: dict[str, Any] = {
    "train.lr": {"type": "loguniform", "low": 1e-7, "high": 4e-3},
    "enqueue": [{"train.lr": 4e-3}, {"train.lr": 1e-7}, {"train.lr": 2e-7}],
}


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    import ray

    from singer_ray.nodes.ray_cluster import NAMESPACE

    ray.init(address="local", num_cpus=CPUS, namespace=NAMESPACE, logging_level=logging.ERROR)
    yield
    ray.shutdown()


def settings(**more: Any) -> Config:
    return load_preset("demo").override({**SMALL, "train.workers": 2, "train.epochs": 3, **more})


def workers() -> list[int]:
    """Process ids of the Ray Train workers of this cluster."""
    import ray
    from ray.util.state import list_actors

    actors = list_actors(ray.get_runtime_context().gcs_address, filters=[("state", "=", "ALIVE")], detail=True)
    return [actor.pid for actor in actors if actor.class_name == "RayTrainWorker" and actor.pid]


class Assassin(io.StringIO):
    """A terminal's other end: kills a worker when the first trial has trained its first epoch."""

    killed = 0

    def write(self, text: str) -> int:
        if "trial 000 epoch 1/3" in text and not self.killed:
            self.killed = workers()[-1]
            os.kill(self.killed, signal.SIGKILL)
        return super().write(text)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Searched, Assassin]:
    config = settings(
        **{
            "search.trials": 3,
            "search.concurrent": 1,
            "search.grace_epochs": 1,
            "search.reduction_factor": 3,
        }
    )
    screen = Assassin()
    out = tmp_path_factory.mktemp("x") / "two"
    return run_search(config, out, space=SPACE, console=Console(file=screen, width=180)), screen


def test_a_search_ends_with_a_true_study_and_all_cpus_free(searched: tuple[Searched, Assassin]) -> None:
    import ray

    done, screen = searched
    rows = load_study(storage_of(None, done.out), done.out.name).trials
    table = done.leaderboard.set_index("id")
    assert [row.state.name for row in rows] == ["COMPLETE", "PRUNED", "PRUNED"]
    for row in rows:
        place = table.loc[f"{row.number:03d}"]
        state = checkpoint.load(done.out / "trials" / f"{row.number:03d}")
        epochs = 3 if row.number == 0 else 1
        assert (place["state"], place["epochs"]) == (row.state.name, epochs)
        assert place["val/miou"] == state["metrics"]["val/miou"]
        assert sorted(row.intermediate_values) == [epoch for epoch, _ in state["history"]] == [*range(1, epochs + 1)]
        assert (state["step"], state["overrides"]) == (3 * epochs, row.params)
    assert rows[0].value == rows[0].intermediate_values[3]
    assert "Traceback" not in screen.getvalue()
    deadline = time.monotonic() + 20
    while ray.available_resources().get("CPU", 0) < CPUS:
        assert time.monotonic() < deadline, "a worker group was not freed"
        time.sleep(0.2)


def test_a_trial_whose_worker_was_killed_ends_with_the_numbers_of_a_run_of_two_workers(
    searched: tuple[Searched, Assassin], tmp_path: Path
) -> None:
    done, screen = searched
    row = done.leaderboard.set_index("id").loc["000"]
    assert screen.killed
    assert row["resumed_from_epoch"] in (1, 2)
    alone = run_distillation(settings(**{"train.lr": 4e-3}), tmp_path / "alone")
    found = checkpoint.load(done.out / "trials" / "000")["metrics"]
    assert {k: v for k, v in found.items() if k not in APART} == {
        k: v for k, v in alone.metrics.items() if k not in APART
    }
    assert pd.isna(done.leaderboard.set_index("id").loc["001"]["resumed_from_epoch"])


def test_workers_that_the_cluster_cannot_hold_are_refused(tmp_path: Path) -> None:
    for more, most in ({"train.workers": 8}, 4), ({"search.cpus_per_trial": 3.0}, 1):
        with pytest.raises(UserError, match=rf"1 node with 4 CPUs can never offer room for more than {most}\."):
            run_search(settings(**more), tmp_path / "out", space=SPACE, console=Console(file=io.StringIO()))
    assert not (tmp_path / "out").exists()


def test_workers_do_not_share_a_gpu() -> None:
    with pytest.raises(
        UserError, match=r"search.gpus_per_trial 0.5 with --workers 2: NCCL needs a GPU for each worker"
    ):
        ResourcePlan.of(settings(**{"search.gpus_per_trial": 0.5}))


def test_a_group_that_finds_no_room_is_an_error_after_a_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    @ray.remote(num_cpus=CPUS - 1)
    class Neighbour:
        def stands(self) -> bool:
            return True

    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "1")
    neighbour = Neighbour.remote()  # type: ignore[attr-defined]
    ray.get(neighbour.stands.remote())
    with pytest.raises(UserError, match="had no room for the 2 workers of a trial"):
        run_search(settings(), tmp_path / "out", space=SPACE, console=Console(file=io.StringIO()))
    assert not (tmp_path / "out").exists()
