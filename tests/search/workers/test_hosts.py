"""Hosts that are busy, break or die, a registry that dies: what it costs, and what is said."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
import ray
import torch
from PIL import Image
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
from rich.console import Console

from singer_ray.arguments import resolve
from singer_ray.config import load_preset
from singer_ray.errors import UserError
from singer_ray.nodes import ray_cluster
from singer_ray.search.driver.search import run_search
from singer_ray.search.strategy.stopping import Budget
from singer_ray.search.study.schema import FAULT
from singer_ray.search.workers import pool as pools
from singer_ray.search.workers.errors import DIED, in_words
from singer_ray.search.workers.group_run import GroupRun
from singer_ray.search.workers.pool import HostPool
from singer_ray.search.workers.resources import Share
from singer_ray.search.workers.trainable import DistillationTrial
from singer_ray.search.workers.trainer_actor import TrainerActor
from singer_ray.search.workers.worker_group import WorkerGroupActor
from singer_ray.storage import Folder
from tests.conftest import SMALL
from tests.search.whole import Listener
from tests.test_api import Stripes

pytestmark = pytest.mark.ray

ENDLESS = {**SMALL, "train.steps_per_epoch": 1_000_000}


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    with ray_cluster.connected():
        yield


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, _cluster: None) -> Iterator[HostPool]:
    """One host, whose epochs take hours."""
    trials = Folder(str(tmp_path_factory.mktemp("trials")))
    found = HostPool(load_preset("demo").override(ENDLESS), None, trials, Share(1, 1.0, 0.0), count=1, prefix="hosts")
    found.wait(print)
    yield found
    found.stop()


def trial(pool: HostPool, label: str) -> DistillationTrial:
    """A trial's actor, in this process."""
    return DistillationTrial(
        {
            "registry": pool.registry_name,
            "epochs": 2,
            "experiment": "x",
            "label": label,
            "parameters": {},
            "overrides": {},
        }
    )


def begin_epoch(host: Any) -> tuple[tuple[str, str], Any]:
    key = ("000", str(time.monotonic()))
    assert ray.get(host.join.remote(key, {})) is None
    return key, host.epoch.remote(key)


@pytest.mark.long
def test_a_registry_that_died_knows_who_is_where(pool: HostPool) -> None:
    registry: Any = ray.get_actor(pool.registry_name, ray_cluster.NAMESPACE)
    places = {label: ray.get(registry.place.remote(label)) for label in ("000", "001")}
    assert places == {"000": "hosts-host-0", "001": None}
    ray.kill(registry, no_restart=False)
    assert {label: ray.get(registry.place.remote(label)) for label in places} == places  # asked as it comes back
    ray.get(registry.retire.remote("000"))
    assert ray.get(registry.place.remote("001")) == "hosts-host-0"
    ray.get(registry.release.remote("001"))


def test_the_process_of_a_trial_that_ended_dies_without_a_word(pool: HostPool) -> None:
    registry: Any = ray.get_actor(pool.registry_name, ray_cluster.NAMESPACE)
    assert ray.get(registry.place.remote("002")) == "hosts-host-0"
    before = signal.getsignal(signal.SIGTERM)
    try:
        trial(pool, "002").cleanup()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # Ray's own raises wherever Python happens to be
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ray.get(registry.place.remote("003")) == "hosts-host-0"
    ray.get(registry.release.remote("003"))


def test_an_epoch_is_cut_short_when_the_search_is_over(pool: HostPool) -> None:
    (host,) = pool.hosts.values()
    key, epoch = begin_epoch(host)
    assert not ray.wait([epoch], timeout=1)[0]
    pool.interrupt()
    assert ray.get(epoch, timeout=60) == {"done": True}
    with pytest.raises(RuntimeError, match="not on this host any more"):
        ray.get(host.epoch.remote(key))
    _, epoch = begin_epoch(host)  # one that came later is left alone
    assert not ray.wait([epoch], timeout=1)[0]
    pool.interrupt()
    ray.get(epoch, timeout=60)


def test_an_epoch_of_several_workers_is_cut_short_too() -> None:
    async def play() -> tuple[Any, bool]:
        key = ("000", "a")
        host: Any = object.__new__(WorkerGroupActor)
        host.run, host.close = GroupRun(key, asyncio.get_running_loop().create_future()), AsyncMock()
        epoch = asyncio.ensure_future(host.epoch(key))
        await asyncio.sleep(0)
        await host.interrupt()
        host.close.assert_awaited_once()
        return await asyncio.wait_for(epoch, 5), host.run.busy  # busy workers are killed, and not waited for

    assert asyncio.run(play()) == ({"done": True}, True)


@pytest.mark.long
def test_a_host_that_stays_busy_is_started_again_and_its_trials_wait_for_it(
    pool: HostPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "BUSY", 0.5)
    (host,) = pool.hosts.values()
    _, epoch = begin_epoch(host)
    assert pool.ask("check", []) is None
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(epoch)
    ray.kill(host, no_restart=False)
    waiting = trial(pool, "007")  # asks while its host is away, which is no failure of the trial
    assert waiting._join() is None
    assert waiting.host is not None
    waiting.cleanup()
    with pytest.raises(UserError, match=r"train\.lr is 'x'"):
        pool.ask("final_metrics", "none", {"train.lr": "x"})


def test_what_ray_carried_is_said_by_what_raised_it_first() -> None:
    broken = RayTaskError("epoch", "a traceback\nof many lines", ValueError("no such camera\n(at all)"))
    assert in_words(RayTaskError("step", "another", broken)) == "ValueError: no such camera"
    assert in_words(RayTaskError("step", "another", ActorDiedError())) == DIED
    killed = ActorUnavailableError("perhaps killed by the OOM killer due to high memory usage", None)
    assert in_words(killed) == DIED
    starved = RayTaskError("step", "another", ActorUnavailableError("its node was low on memory", None))
    assert in_words(starved).startswith(f"{DIED}: Ray ended it because the machine ran low on memory. Lower")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_trial_that_does_not_fit_into_memory_is_not_tried_again(error: Exception, tmp_path: Path) -> None:
    host = TrainerActor(load_preset("demo").model_dump(), None, Folder(str(tmp_path)))

    def train() -> Iterator[dict[str, float]]:
        raise error
        yield {}

    host.key, host.epochs = ("000", "a"), train()
    said = host.epoch(("000", "a"))[FAULT]
    assert said.startswith("it does not fit into memory (")
    assert "Lower train.batch_size" in said
    assert host.key is None
    host.key, host.epochs = ("000", "a"), iter([])  # a fault of the program is for Tune to try again
    with pytest.raises(StopIteration):
        host.epoch(("000", "a"))


@pytest.mark.long
def test_a_host_whose_gpu_broke_down_says_so_and_ends_that_ray_may_start_another(tmp_path: Path) -> None:
    program = f"""
from singer_ray.config import load_preset
from singer_ray.search.workers.trainer_actor import TrainerActor
from singer_ray.storage import Folder
def train(text):
    raise RuntimeError(text)
    yield
host = TrainerActor(load_preset("demo").model_dump(), None, Folder({str(tmp_path)!r}))
for text in ("another fault", "CUDA error: an illegal memory access was encountered"):
    host.key, host.epochs = ("000", "a"), train(text)
    try:
        host.epoch(("000", "a"))
    except RuntimeError as error:
        print(error, flush=True)
import time; time.sleep(30)
"""
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["another fault", "CUDA error: an illegal memory access was encountered"]
    assert time.monotonic() - begin < 25


class Moody(Stripes):
    """Images from a camera that is as a file says."""

    def __init__(self, mood: Path) -> None:
        super().__init__(64, 0)
        self.mood = mood

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        match self.mood.read_text():
            case "broken":
                raise ValueError("the camera is broken")
            case "slow":
                time.sleep(2)
        return super().__getitem__(i)


@pytest.mark.long
def test_a_search_says_what_broke_and_does_not_wait_for_the_epoch_that_a_limit_cuts_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mood = tmp_path / "mood"
    mood.write_text("good")

    def set_to(name: str) -> Callable[[], None]:
        def act() -> None:
            mood.write_text(name)

        return act

    settings = {name: value for name, value in SMALL.items() if "scenes" not in name} | {
        "train.steps_per_epoch": 60,
        "train.batch_size": 4,
        "train.epochs": 9,
        "search.trials": 2,
        "search.concurrent": 1,
        "search.max_failures": 0,
        "search.scheduler": "none",
    }
    data = {"train": Moody(mood), "val": Stripes(40, 1)}
    config, inputs = resolve(None, data, None, "demo", settings)
    stopped: list[float] = []

    def stop() -> None:
        mood.write_text("slow")
        monkeypatch.setattr(Budget, "_spent", lambda self, spending: "stopped: enough")
        stopped.append(time.monotonic())

    screen = Listener(
        "trial 000 started",
        set_to("broken"),
        "trial 000 FAIL",
        set_to("good"),
        "trial 001 epoch 1/9",
        stop,
        "stopped: enough",
        set_to("good"),
    )
    space = {"method.rank": {"type": "int", "low": 1, "high": 8}}
    done = run_search(config, tmp_path / "search", space=space, inputs=inputs, console=Console(file=screen, width=200))
    assert time.monotonic() - stopped[0] < 60
    table = done.leaderboard.set_index("id")
    assert (table.loc["000", "state"], table.loc["000", FAULT]) == ("FAIL", "ValueError: the camera is broken")
    assert (table.loc["001", "state"], len(done.best)) == ("PRUNED", 1)
