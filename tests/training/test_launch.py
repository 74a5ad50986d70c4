"""The same loop in this process and in a Ray Train TorchTrainer on a real cluster."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.train
import torch
from safetensors.torch import load_file

from singer_ray.config import Config
from singer_ray.distillation import Distilled, run_distillation
from singer_ray.errors import UserError
from singer_ray.nodes import ray_cluster
from singer_ray.training import checkpoint as saved
from singer_ray.training import launch
from singer_ray.training.launch import Inputs
from singer_ray.training.resuming import check_same, resumed_config

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    with ray_cluster.connected():
        yield


WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"


def same_weights(first: Distilled, second: Distilled) -> bool:
    a, b = (load_file(d.student / "model.safetensors") for d in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.long
def test_one_worker_gives_the_same_bits_by_either_launcher(small: Config, tmp_path: Path) -> None:
    config = small.override({"train.steps_per_epoch": 5})
    here = run_distillation(config, tmp_path / "here")
    ray_one = run_distillation(config.override({"train.launcher": "ray"}), tmp_path / "one")
    assert same_weights(here, ray_one)
    assert here.metrics == ray_one.metrics


def test_what_a_worker_runs_gives_the_same_bits_as_this_process(
    small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Train's own part, which is processes around it, is in the tests beside this one."""
    here = tmp_path / "here"
    run_distillation(small, here)
    place = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    states: list[dict[str, Any]] = []
    told: list[str] = []
    monkeypatch.setattr(ray.train, "get_context", lambda: place)
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: None)
    monkeypatch.setattr(
        ray.train, "report", lambda metrics, checkpoint: states.append(saved.load(Path(checkpoint.path)))
    )
    settings = {"config": small.model_dump(), "inputs": (ray.put(Inputs()),), "saved": (None,)}
    launch._worker(settings | {"tell": lambda kind, content: told.append(kind)})
    expected = saved.load(here)
    assert [kind for kind in told if kind != "line"] == ["begin", "epoch", "epoch"]
    assert [state["step"] for state in states] == [3, 6]
    weights = states[-1]["distiller"]
    assert all(torch.equal(weights[name], value) for name, value in expected["distiller"].items())
    clock = ("images_per_second", "data_wait_share")
    found, other = ({k: v for k, v in s["metrics"].items() if k not in clock} for s in (states[-1], expected))
    assert found == other


def test_what_starts_the_workers_loads_none_of_what_they_load_and_watches_no_cloud(
    small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Train's controller reads the settings too: each worker would wait until it had loaded torch and timm."""

    class CaughtError(Exception):
        pass

    def catch(loop: Any, settings: Any, *given: Any, **named: Any) -> Any:
        seen.extend((ray.cloudpickle.dumps(settings), os.environ[WATCHER]))
        raise CaughtError

    seen: list[Any] = []
    monkeypatch.setattr(launch, "worker_group", catch)
    with pytest.raises(CaughtError):
        run_distillation(small.override({"train.launcher": "ray"}), tmp_path / "run")
    settings, watcher = seen
    named = set(re.findall(rb"singer_ray[.\w]+", settings))
    assert named == {b"singer_ray.training.messages"}
    assert watcher == "0"  # nobody takes the machines of a cluster away that this process started
    assert WATCHER not in os.environ


@pytest.mark.long
def test_two_workers_give_the_same_loss(small: Config, tmp_path: Path) -> None:
    config = small.override({"train.steps_per_epoch": 5})
    here = run_distillation(config, tmp_path / "here")
    ray_two = run_distillation(config.override({"train.workers": 2}), tmp_path / "two")
    assert ray_two.metrics["train/loss"] == pytest.approx(here.metrics["train/loss"], rel=1e-4)
    assert not same_weights(here, ray_two)  # it really was another way of adding up
    assert {p.name for p in (tmp_path / "two").iterdir()} >= {"result.json", "student", "ray_train"}


def test_more_workers_than_the_cluster_has_are_refused_and_leave_nothing(small: Config, tmp_path: Path) -> None:
    config = small.override({"train.workers": 64, "train.batch_size": 64})
    with pytest.raises(UserError, match=r"No room for the 64 workers of --workers 64 \(1 CPU each, on one node\)"):
        run_distillation(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_resuming_a_run_gives_the_same_student(small: Config, tmp_path: Path) -> None:
    whole = run_distillation(small, tmp_path / "whole")
    out = tmp_path / "cut"

    class CutOffError(Exception):
        pass

    def cut(line: str) -> None:
        if line.startswith("epoch 1/2"):
            raise CutOffError

    with pytest.raises(CutOffError):
        run_distillation(small, out, log=cut)
    assert not (out / "result.json").exists()
    resumed = run_distillation(small, out, resume=True)
    assert same_weights(whole, resumed)
    assert whole.metrics == resumed.metrics


def test_resume_refuses_another_configuration(small: Config, tmp_path: Path) -> None:
    run_distillation(small, tmp_path / "run")
    with pytest.raises(UserError, match=r"method.rank differs from its config.yaml"):
        run_distillation(small.override({"method.rank": 3}), tmp_path / "run", resume=True)
    with pytest.raises(UserError, match="no run to resume"):
        run_distillation(small, tmp_path / "nothing", resume=True)


@pytest.mark.long
def test_the_result_says_how_it_came_about(small: Config, tmp_path: Path) -> None:
    done = run_distillation(small, tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert set(result) >= {"metrics", "config", "versions", "git_commit", "seconds", "images_per_second"}
    assert result == done.result
    assert Config.model_validate(result["config"]) == small
    assert result["versions"]["torch"] == torch.__version__.partition("+")[0]
    for name in ("norm_maps.png", "pca.png"):
        assert (tmp_path / "run" / "pictures" / name).stat().st_size > 10_000
    names = {"linear_top1", "knn_top1", "miou", "depth_rmse"}
    assert {f"{split}/{n}" for split in ("val", "test") for n in names} <= set(result["metrics"])
    for network, layers in (("teacher", (3, 5)), ("refined", (3, 5)), ("student", (1, 2))):
        assert {f"{network}/max_median_norm/{n}" for n in layers} <= set(result["metrics"])


@pytest.mark.long
def test_a_run_goes_on_with_other_workers_since_its_batches_are_of_all_of_them(small: Config, tmp_path: Path) -> None:
    config = small.override({"train.steps_per_epoch": 5})
    whole = run_distillation(config, tmp_path / "whole")

    class CutOffError(Exception):
        pass

    def cut(line: str) -> None:
        if line.startswith("epoch 1/2"):
            raise CutOffError

    with pytest.raises(CutOffError):
        run_distillation(config, tmp_path / "cut", log=cut)
    two = config.override({"train.workers": 2})
    resumed = run_distillation(two, tmp_path / "cut", resume=True)
    assert resumed.metrics["train/loss"] == pytest.approx(whole.metrics["train/loss"], rel=1e-4)
    # Back to one, it stays where its checkpoints are.
    alone = resumed_config(tmp_path / "cut", {"train.workers": 1})
    assert alone == config.override({"train.launcher": "ray"})
    check_same(tmp_path / "cut", config)
    with pytest.raises(UserError, match=r"train\.launcher differs"):
        check_same(tmp_path / "cut", config.override({"train.launcher": "local"}))
