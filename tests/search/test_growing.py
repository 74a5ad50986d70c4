"""A search on machines of one's own that join while it runs, and leave: on a real Ray cluster of several raylets."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from singer_ray.config import load_preset
from singer_ray.nodes import ray_cluster
from singer_ray.search.workers import pool as pools
from singer_ray.search.workers.pool import HostPool
from singer_ray.search.workers.resources import ResourcePlan
from singer_ray.storage import Folder
from tests.conftest import SMALL
from tests.nodes.test_limits import RECORDED

pytestmark = pytest.mark.ray

SOON = 90.0


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that is kept out of training, as `ray up clusters/onprem.yaml` leaves it; two machines are to join."""
    monkeypatch.setenv("HOME", str(tmp_path))
    # As other clusters of this process have it; a home without a token needs one.
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", os.urandom(16).hex())
    raylet: Any = ray._raylet
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()
    shutil.copy(RECORDED / "onprem.json", tmp_path / "ray_bootstrap_config.yaml")
    with TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:  # sockets want a short path
        monkeypatch.setenv("RAY_TMPDIR", folder)
        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            ray.init(address=found.address, namespace=ray_cluster.NAMESPACE, logging_level=logging.ERROR)
            yield found
        finally:
            ray.shutdown()
            found.shutdown()
            monkeypatch.undo()
            raylet.AuthenticationTokenLoader.instance().reset_cache()


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_a_search_waits_for_machines_takes_those_that_join_and_goes_on_without_those_that_leave(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "LOOK", 0.2)
    monkeypatch.setattr(pools, "LOOK", 0.2)
    said: list[str] = []
    plans: list[ResourcePlan] = []
    config = load_preset("demo").override({**SMALL, "train.device": "cpu", "search.trials": 9, "search.concurrent": 8})
    planning = threading.Thread(target=lambda: plans.append(ResourcePlan.of(config, said.append)))
    planning.start()
    eventually(lambda: bool(said), "it says nothing")
    assert said == [
        "waiting for machines: 1 of 3 machines is here, with no room for a trial (1 CPU each); Ctrl-C ends this"
    ]
    first = cluster.add_node(num_cpus=1)
    planning.join(SOON)
    (plan,) = plans
    assert (plan.concurrent, len(said)) == (1, 1)
    pool = HostPool(config, None, Folder(str(tmp_path / "trials")), plan.share, count=plan.concurrent, plan=plan)
    try:
        assert "val/miou" in pool.wait(said.append)
        assert (pool.size(), pool.open()) == (1, 1)
        registry: Any = ray.get_actor(pool.registry_name, ray_cluster.NAMESPACE)
        assert [bool(ray.get(registry.place.remote(trial))) for trial in ("000", "001")] == [True, False]
        cluster.add_node(num_cpus=1)
        eventually(lambda: pool.size() == 2, "nobody uses the machine that has joined")
        eventually(lambda: bool(ray.get(registry.place.remote("001"))), "no trial gets a place there")
        cluster.remove_node(first, allow_graceful=False)
        eventually(lambda: pool.size() == 1, "a machine that has left still counts")
        assert plan.target() == 1
        assert pool.ask("check", []) is None  # by the host that is left
    finally:
        pool.stop()
