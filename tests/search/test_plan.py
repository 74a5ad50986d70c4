"""How many trials have room at one time. What fits was seen on Ray 2.60 with actors on a node of two GPUs."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from singer_ray import ray_cluster
from singer_ray.config import Config, load_preset
from singer_ray.errors import UserError
from singer_ray.search.plan import Plan


def settings(gpus: float, **more: Any) -> Config:
    return load_preset("demo").override({"search.gpus_per_trial": gpus, "search.trials": 50, **more})


def cluster(monkeypatch: pytest.MonkeyPatch, *nodes: tuple[int, int]) -> None:
    """A Ray cluster of nodes with so many CPUs and GPUs."""
    found = [{"Alive": True, "Resources": {"CPU": cpus, "GPU": gpus}} for cpus, gpus in nodes]
    total = {"CPU": sum(cpus for cpus, _ in nodes), "GPU": sum(gpus for _, gpus in nodes)}
    monkeypatch.setattr(ray, "nodes", lambda: found)
    monkeypatch.setattr(ray, "cluster_resources", lambda: total)
    monkeypatch.setattr(ray_cluster, "resources", lambda: total)


@pytest.mark.parametrize(
    ("gpus", "fitting"), [(0.0, 16), (0.25, 8), (1 / 3, 6), (0.4, 4), (0.5, 4), (0.6, 2), (1.0, 2), (2.0, 1)]
)
def test_a_fraction_is_taken_from_one_gpu(gpus: float, fitting: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch, (16, 2))
    plan = Plan.of(settings(gpus))
    assert (plan.concurrent, plan.gpus_held) == (fitting, fitting * gpus)
    with pytest.raises(UserError, match=rf"2 GPUs, room for {fitting}\. Lower --concurrent"):
        Plan.of(settings(gpus, **{"search.concurrent": fitting + 1}))


def test_no_trial_is_split_among_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch, (8, 1), (8, 3), (8, 0))
    assert [Plan.of(settings(gpus)).concurrent for gpus in (0.6, 2.0, 3.0)] == [4, 1, 1]
    with pytest.raises(UserError, match=r"4 GPUs, room for 0\."):
        Plan.of(settings(4.0))


def test_more_than_one_gpu_are_whole_ones() -> None:
    with pytest.raises(UserError) as caught:
        settings(1.5)
    assert str(caught.value).startswith(
        "search.gpus_per_trial is 1.5 (the configuration). Allowed: a fraction of one GPU, or a whole number of GPUs."
    )
