"""The hosts of a search: how many there are, which are there, and which trial is on which."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ray

from singer_ray.config import Config
from singer_ray.errors import UserError
from singer_ray.ray_cluster import NAMESPACE, ON_HEAD, Note, is_alive, user_error_in
from singer_ray.search.group import CLOSING_SECONDS, GroupHost, Share, train_environment
from singer_ray.search.host import CONTROL, HostedTrainer
from singer_ray.search.registry import HostRegistry, Places
from singer_ray.storage import Folder

if TYPE_CHECKING:
    from singer_ray.training.timing import StepTimes

PATIENCE = 60.0
"""Seconds that a search waits for further hosts once it has one. Later ones join when they come."""
LOOK = 2.0
"""Seconds between two looks at which hosts are there."""
BUSY, AWAY = 20.0, 600.0
"""Seconds that work which is no trial's waits: for a host that trains, after which it is killed; and for any host."""


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
        self.hosts: dict[str, Any] = {}
        self._benches: list[Any] = []
        share = Share(config.train.workers, cpus, gpus)
        if share.workers == 1:
            own = _actor(HostedTrainer, num_cpus=cpus, num_gpus=gpus, **_HOST)
            self.hosts = {
                name: own.options(name=name, namespace=NAMESPACE).remote(config.model_dump(), self._inputs, trials)
                for name in names
            }
            self._benches = list(self.hosts.values())
        else:
            group = _actor(GroupHost, num_cpus=0, resources=ON_HEAD)
            self.hosts = {
                name: group.options(name=name, namespace=NAMESPACE).remote(
                    name, config.model_dump(), (self._inputs,), trials, share, train_environment()
                )
                for name in names
            }
            on_cpu = config.override({"train.device": "cpu"})
            self._benches = [
                _actor(HostedTrainer, num_cpus=0, **_HOST).remote(on_cpu.model_dump(), self._inputs, trials)
            ]
        self.registry_name = f"{prefix}-registry"
        self._note = Note(self.registry_name)
        registry = _actor(HostRegistry, num_cpus=0, max_task_retries=-1, resources=ON_HEAD)
        self.registry = registry.options(name=self.registry_name, namespace=NAMESPACE).remote(self._note)
        self.placed: tuple[float, dict[str, float]] = (0.0, {})
        """When it was last seen which trials have a host, and since when each has it (Unix seconds)."""
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

    def ask(self, method: str, *given: Any) -> Any:
        """What a HostedTrainer that trains no trial answers. Raises UserError, or a RayError when hosts keep dying."""
        for last in (False, False, True):
            try:
                return ray.get(getattr(self._idle(), method).remote(*given))
            except ray.exceptions.RayActorError:
                if last:
                    raise
            except ray.exceptions.RayError as error:
                raise user_error_in(error) from error
        raise AssertionError("the last attempt returns or raises")

    def interrupt(self) -> None:
        """Ends the epochs that are being trained: the search has ended their trials."""
        for host in self.hosts.values():
            host.interrupt.remote()

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
        with contextlib.suppress(Exception):
            self._note.delete()

    def _attend(self) -> None:
        """Keeps the registry told of which hosts are there, until the pool ends."""
        while not self._over.wait(LOOK):
            with contextlib.suppress(Exception):  # Ray itself may be going away: then so is the search
                self.placed = ray.get(self.registry.attend.remote(self.present()), timeout=AWAY)

    def _idle(self) -> Any:
        """A HostedTrainer that answers at once. Where all are busy for long they are killed, and come back."""
        begin, killed = time.monotonic(), False
        while time.monotonic() - begin < AWAY:
            asked = {bench.ping.remote(): bench for bench in self._benches if is_alive(bench)}
            waiting, deadline = list(asked), time.monotonic() + BUSY
            while waiting and (left := deadline - time.monotonic()) > 0:
                done, waiting = ray.wait(waiting, timeout=left)
                for reference in done:
                    with contextlib.suppress(ray.exceptions.RayActorError):  # it has just died
                        ray.get(reference)
                        return asked[reference]
            for reference in () if killed else waiting:
                ray.kill(asked[reference], no_restart=False)
            killed = killed or bool(waiting)
            time.sleep(0.5)
        raise UserError(f"No host of the search has answered for {AWAY:.0f} s: the cluster may have lost its machines.")


_HOST: dict[str, Any] = {"scheduling_strategy": "SPREAD", "concurrency_groups": {CONTROL: 1}}


def _actor(kind: type, **options: Any) -> Any:
    """Ray's types know neither all options nor the methods of actors that are made with some."""
    return ray.remote(max_restarts=-1, **options)(kind)
