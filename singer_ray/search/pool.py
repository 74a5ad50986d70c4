"""The hosts of a search: how many there are, which are there, and which trial is on which."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ray

from singer_ray.config import Config
from singer_ray.ray_cluster import NAMESPACE, ON_HEAD, is_alive, user_error_in
from singer_ray.search.group import CLOSING_SECONDS, GroupHost, Share, train_environment
from singer_ray.search.host import HostedTrainer
from singer_ray.storage import Folder

if TYPE_CHECKING:
    from singer_ray.training.timing import StepTimes

PATIENCE = 60.0
"""Seconds that a search waits for further hosts once it has one. Later ones join when they come."""
LOOK = 2.0
"""Seconds between two looks at which hosts are there."""


class HostRegistry:
    """Which trial is on which host. Runs as a Ray actor.

    There may be more trials than hosts: those that were announced first come first. Hosts come and go: a spot machine
    may be taken away, and the autoscaler may never get all that it was asked for.
    """

    def __init__(self) -> None:
        self.hosts: list[str] = []
        self.places: dict[str, str] = {}
        self.queue: list[str] = []
        self.retired: set[str] = set()

    def attend(self, hosts: Sequence[str]) -> None:
        """These hosts are there now, and no others. Trials of the others come first when they ask again."""
        self.hosts = list(hosts)
        for trial in [trial for trial, name in self.places.items() if name not in hosts]:
            del self.places[trial]
            self.queue.insert(0, trial)

    def announce(self, trial: str) -> None:
        """The trial will ask for a place."""
        if trial not in self.queue and trial not in self.places:
            self.queue.append(trial)

    def place(self, trial: str) -> str | None:
        """The name of the trial's host; None while others are before it, "" when the search has ended the trial.

        Asked again it stays the same: the host of a trial whose actor died may still train its epoch, and two hosts
        must not write one checkpoint.
        """
        if trial in self.retired:
            return ""
        if trial not in self.places:
            self.announce(trial)
            taken = set(self.places.values())
            free = [name for name in self.hosts if name not in taken]
            if self.queue.index(trial) >= len(free):
                return None
            self.queue.remove(trial)
            self.places[trial] = free[0]
        return self.places[trial]

    def retire(self, trial: str) -> None:
        """The search has ended the trial: it shall get no place any more."""
        self.retired.add(trial)
        self.release(trial)

    def release(self, trial: str) -> None:
        """The trial's actor has ended, or the trial itself."""
        self.places.pop(trial, None)
        if trial in self.queue:
            self.queue.remove(trial)


class HostPool:
    """The hosts of a search and their registry, alive until `stop` or until the driver ends.

    With one worker a trial the hosts train themselves. With more, each is a GroupHost, and `bench` does what needs no
    trial: on a CPU, holding nothing, since the workers of the trials want all that there is.

    Raises UserError when a host cannot be made (no such teacher, no such folder, ...).

    Args:
        cpus: of each host, or of each of a trial's workers. gpus likewise.
    """

    def __init__(
        self, config: Config, inputs: Any, trials: Folder, count: int, *, cpus: float, gpus: float, prefix: str
    ) -> None:
        # The reference is kept: a host that is restarted reads it again.
        self._inputs = None if inputs is None else ray.put(inputs)
        names = [f"{prefix}-host-{n}" for n in range(count)]
        # Any: Ray's types do not know the methods of actors that are made with options.
        self.hosts: dict[str, Any] = {}
        self._benches: list[Any] = []
        share = Share(config.train.workers, cpus, gpus)
        if share.workers == 1:
            own = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=-1, scheduling_strategy="SPREAD")(HostedTrainer)
            self.hosts = {
                name: own.options(name=name, namespace=NAMESPACE).remote(config.model_dump(), self._inputs, trials)
                for name in names
            }
            self._benches = list(self.hosts.values())
        else:
            group = ray.remote(num_cpus=0, max_restarts=-1, resources=ON_HEAD)(GroupHost)
            self.hosts = {
                name: group.options(name=name, namespace=NAMESPACE).remote(
                    name, config.model_dump(), (self._inputs,), trials, share, train_environment()
                )
                for name in names
            }
            bench = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy="SPREAD")(HostedTrainer)
            on_cpu = config.override({"train.device": "cpu"})
            self._benches = [bench.remote(on_cpu.model_dump(), self._inputs, trials)]
        self.registry_name = f"{prefix}-registry"
        registry = ray.remote(num_cpus=0, max_restarts=-1, resources=ON_HEAD)(HostRegistry)
        self.registry: Any = registry.options(name=self.registry_name, namespace=NAMESPACE).remote()
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._attend, daemon=True)

    def wait(self, say: Callable[[str], None]) -> list[str]:
        """Blocks until hosts stand: one at least, and all that come within `PATIENCE` after it.

        Returns the metrics that trials will report, best first.
        """
        waiting = {bench.ready.remote() for bench in self._benches}
        metrics: list[str] = []
        patience = float("inf")
        while waiting and time.monotonic() < patience:
            done, _ = ray.wait(list(waiting), timeout=min(30.0, PATIENCE))
            for reference in done:
                waiting.remove(reference)
                try:
                    metrics = ray.get(reference)
                except ray.exceptions.RayError as error:
                    raise user_error_in(error) from error
                patience = min(patience, time.monotonic() + PATIENCE)
            if not done:
                say(f"waiting for {len(waiting)} of {len(self._benches)} hosts: the cluster is still making room")
        if waiting:
            say(f"going on with {len(self._benches) - len(waiting)} of {len(self._benches)} hosts; others join later")
        ray.get(self.registry.attend.remote(self.present()))
        self._watch.start()
        return metrics

    def present(self) -> list[str]:
        """The names of the hosts that are there."""
        return [name for name, host in self.hosts.items() if is_alive(host)]

    def timing(self) -> StepTimes:
        """The mean over all hosts, timed at the same time. Raises UserError."""
        from singer_ray.training.timing import StepTimes

        try:
            return StepTimes.mean(ray.get([self.hosts[name].timing.remote() for name in self.present()]))
        except ray.exceptions.RayError as error:
            raise user_error_in(error) from error

    def any(self) -> Any:
        """A HostedTrainer for work that is not a trial's."""
        return next((bench for bench in self._benches if is_alive(bench)), self._benches[0])

    def places(self) -> Places:
        """A watcher that keeps the registry up to date."""
        return Places(self.registry)

    def stop(self) -> None:
        """Ends all hosts."""
        self._over.set()
        groups = [host for host in self.hosts.values() if host not in self._benches]
        with contextlib.suppress(ray.exceptions.RayError):  # what does not end by itself dies with its host
            ray.get([group.close.remote() for group in groups], timeout=CLOSING_SECONDS)
        for actor in (*groups, *self._benches, self.registry):
            ray.kill(actor)

    def _attend(self) -> None:
        """Keeps the registry told of which hosts are there, until the pool ends."""
        before: list[str] = []
        while not self._over.wait(LOOK):
            with contextlib.suppress(Exception):  # Ray itself may be going away: then so is the search
                now = self.present()
                if now != before:
                    self.registry.attend.remote(now)
                before = now


class Places:
    """Tells the registry which trials come and go, also where a trial's actor could not."""

    def __init__(self, registry: Any) -> None:
        self.registry = registry

    def start(self, trial: str, parameters: Mapping[str, Any]) -> None:
        self.registry.announce.remote(trial)

    def log(self, trial: str, epoch: int, metrics: Mapping[str, Any]) -> None: ...

    def end(self, trial: str, state: str, metrics: Mapping[str, Any]) -> None:
        self.registry.retire.remote(trial)

    def close(self) -> None: ...
