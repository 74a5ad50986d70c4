"""How many trials have room at one time. What fits was seen on Ray 2.60 with actors on a node of two GPUs."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from singer_ray.config import Config, load_preset
from singer_ray.errors import UserError
from singer_ray.nodes import ray_cluster
from singer_ray.nodes.limits import HEAD
from singer_ray.search.workers.resources import ResourcePlan
from tests.nodes.test_limits import limits


def settings(gpus: float, **more: Any) -> Config:
    return load_preset("demo").override({"search.gpus_per_trial": gpus, "search.trials": 50, **more})


def cluster(monkeypatch: pytest.MonkeyPatch, *nodes: tuple[int, int]) -> None:
    """A Ray cluster of nodes with so many CPUs and GPUs, which does not grow."""
    found = [{"Alive": True, "Resources": {"CPU": cpus, "GPU": gpus}} for cpus, gpus in nodes]
    monkeypatch.setattr(ray, "nodes", lambda: found)
    monkeypatch.setattr(ray_cluster, "limits", lambda: None)


@pytest.mark.parametrize(
    ("gpus", "fitting"), [(0.0, 16), (0.25, 8), (1 / 3, 6), (0.4, 4), (0.5, 4), (0.6, 2), (1.0, 2), (2.0, 1)]
)
def test_a_fraction_is_taken_from_one_gpu(gpus: float, fitting: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch, (16, 2))
    plan = ResourcePlan.of(settings(gpus))
    assert (plan.concurrent, plan.gpus_held) == (fitting, fitting * gpus)
    assert ResourcePlan.of(settings(gpus, **{"search.concurrent": fitting + 1})).concurrent == fitting  # a wish
    assert ResourcePlan.of(settings(gpus, **{"search.concurrent": 1})).concurrent == 1


def test_no_trial_is_split_among_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch, (8, 1), (8, 3), (8, 0))
    assert [ResourcePlan.of(settings(gpus)).concurrent for gpus in (0.6, 2.0, 3.0)] == [4, 1, 1]
    with pytest.raises(UserError, match=r"No room for a trial \(1 CPU and 4 GPUs each, on one node\): .* than 0\."):
        ResourcePlan.of(settings(4.0))


def test_what_shall_run_at_a_time_follows_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch, (8, 1))
    plan = ResourcePlan.of(settings(1.0, **{"search.concurrent": 3}))
    assert (plan.concurrent, plan.target()) == (1, 1)
    for gpus, found in ((2, 3), (9, 3), (0, 1)):
        cluster(monkeypatch, (8, 1), (8, gpus))
        assert plan.target() == found
    cluster(monkeypatch, (8, 0))
    assert plan.target() == 0


def test_without_a_shared_folder_trials_stay_on_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch, (4, 0), (4, 0))
    ray.nodes()[0]["Resources"][HEAD] = 1.0
    assert ResourcePlan.of(settings(0.0)).target() == 8
    plan = ResourcePlan.of(settings(0.0), here=True)
    assert plan.target() == 4
    assert plan.share.each.keys() == {"CPU", HEAD}


def test_what_an_autoscaler_gets_machines_for_counts_before_they_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch, (0, 0))
    monkeypatch.setattr(ray_cluster, "limits", lambda: limits("aws"))
    plan = ResourcePlan.of(load_preset("demo").override({"search.trials": 50}))
    assert (plan.share.gpus, plan.concurrent, plan.gpus_held) == (1.0, 10, 10.0)
    assert ResourcePlan.of(settings(0.5, **{"search.trials": 5})).target() == 5
    assert ResourcePlan.of(settings(1.0, **{"train.workers": 4, "train.batch_size": 64})).target() == 10 // 4


def test_more_than_one_gpu_are_whole_ones() -> None:
    with pytest.raises(UserError) as caught:
        settings(1.5)
    assert str(caught.value).startswith(
        "search.gpus_per_trial is 1.5 (the configuration). Allowed: a fraction of one GPU, or a whole number of GPUs."
    )
