"""The hosts of a search: how many there are, which are there, and which trial is on which."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ray

from singer_ray.config import Config
from singer_ray.errors import UserError, user_error_in
from singer_ray.nodes.ray_cluster import LOOK, NAMESPACE, ON_HEAD, SAY, Note, is_alive, machines
from singer_ray.search.workers.errors import in_words
from singer_ray.search.workers.registry import HostRegistry, Places
from singer_ray.search.workers.trainer_actor import CONTROL, TrainerActor
from singer_ray.search.workers.worker_group import CLOSING_SECONDS, WorkerGroupActor, train_environment
from singer_ray.storage import Folder

if TYPE_CHECKING:
    from singer_ray.search.workers.resources import ResourcePlan, Share
    from singer_ray.training.timing import StepTimes

PATIENCE = 60.0
"""Seconds that a search waits for more hosts once it has one. Later ones join when they come."""
BUSY, AWAY = 20.0, 600.0
"""Timeouts in seconds of calls that belong to no trial: for a busy host, which is then killed; and for any host."""


class HostPool:
    """The hosts of a search and their registry, alive until `stop` or until the driver ends.

    With one worker a trial the hosts are TrainerActors. With more they are WorkerGroupActors, and one TrainerActor
    beside them answers the calls that belong to no trial: on a CPU, and without reserving one, since the workers of
    the trials need all that there is.

    There are as many hosts as the cluster has room for: more are made when machines join. Those of a machine that
    left wait for another.

    Raises UserError when a host cannot be made (no such teacher, no such folder, ...).

    Args:
        share: what each trial holds.
        count: of the first hosts.
        plan: knows how many there shall be as the cluster changes; without it there are always `count`.
        prefix: of the names of all actors.
    """

    def __init__(
        self,
        config: Config,
        inputs: Any,
        trials: Folder,
        share: Share,
        *,
        count: int,
        plan: ResourcePlan | None = None,
        prefix: str | None = None,
    ) -> None:
        self.config, self.trials, self.share, self.plan = config, trials, share, plan
        self.prefix = prefix or f"search-{uuid.uuid4().hex[:8]}"
        # The reference is kept: a restarted host reads it again.
        self._inputs = None if inputs is None else ray.put(inputs)
        self.where = {"resources": ON_HEAD} if self.share.here else {"scheduling_strategy": "SPREAD"}
        self.hosts: dict[str, Any] = {}
        self._loading: dict[Any, str] = {}
        """Pending call of `ready` -> name of the host, for those that have not answered yet."""
        self._refused: set[str] = set()
        self._seen: list[str] = []
        self._room, self._target = count, count
        for _ in range(count):
            self._add()
        if self.share.workers > 1:
            on_cpu = config.override({"train.device": "cpu"})
            self._context = _actor(TrainerActor, num_cpus=0, **self.where, **_HOST).remote(
                on_cpu.model_dump(), self._inputs, trials
            )
            self._loading[self._context.ready.remote()] = _CONTEXT
        self.registry_name = f"{self.prefix}-registry"
        self._note = Note(self.registry_name)
        registry = _actor(HostRegistry, num_cpus=0, max_task_retries=-1, resources=ON_HEAD)
        self.registry = registry.options(name=self.registry_name, namespace=NAMESPACE).remote(self._note)
        self.placed: tuple[float, dict[str, float]] = (0.0, {})
        """Time of the last look, and since when each trial that has a host has it (Unix seconds)."""
        self._log: Callable[[str], None] = _silent
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._attend, daemon=True)

    def wait(self, log: Callable[[str], None]) -> list[str]:
        """Blocks until there are hosts: at least one, and all that come within `PATIENCE` after it.

        Returns the metrics that trials will report, best first.
        """
        self._log = log
        metrics: list[str] = []
        begin = said = time.monotonic()
        patience = float("inf")
        while self._loading and time.monotonic() < patience:
            done, _ = ray.wait(list(self._loading), timeout=LOOK)
            for reference in done:
                del self._loading[reference]
                try:
                    metrics = ray.get(reference)
                except ray.exceptions.RayError as error:
                    raise user_error_in(error) from error
                patience = min(patience, time.monotonic() + PATIENCE)
            self._grow()
            if not done and time.monotonic() - said >= SAY:
                said = time.monotonic()
                log(
                    f"waiting for {len(self._loading)} of {self._expected()} hosts, {machines()} here: the cluster is "
                    f"still making room ({said - begin:.0f} s)"
                )
        if self._loading:
            there = self._expected() - len(self._loading)
            log(f"going on with {there} of {self._expected()} hosts; others join later")
        self._look()
        self._watch.start()
        return metrics

    def present(self) -> list[str]:
        """The names of the hosts that are there."""
        away = {*self._loading.values(), *self._refused}
        return [name for name, host in list(self.hosts.items()) if name not in away and is_alive(host)]

    def size(self) -> int:
        """How many trials can train at a time on the machines that are there, as of the last look."""
        return min(len(self._seen), self._room) if self.share.workers > 1 else len(self._seen)

    def open(self) -> int:
        """How many trials may run at a time, those included whose workers first make the cluster grow."""
        return min(len(self._seen), self._target) if self.share.workers > 1 else len(self._seen)

    def timing(self) -> StepTimes:
        """The mean over all hosts that have room, timed at the same time. Raises UserError."""
        from singer_ray.training.timing import StepTimes

        there = self.present()[: max(1, self.size())]
        try:
            return StepTimes.mean(ray.get([self.hosts[name].timing.remote() for name in there]))
        except ray.exceptions.RayError as error:
            raise user_error_in(error) from error

    def ask(self, method: str, *given: Any) -> Any:
        """Calls a method of a TrainerActor that is idle. Raises UserError, or a RayError when hosts keep dying."""
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
        """Cuts short the epochs that are being trained, since the search has ended their trials."""
        for host in list(self.hosts.values()):
            host.interrupt.remote()

    def places(self) -> Places:
        """The callback that keeps the registry up to date."""
        return Places(self.registry)

    def stop(self) -> None:
        """Ends all hosts."""
        self._over.set()
        if self._watch.is_alive():
            self._watch.join(CLOSING_SECONDS)  # no host is made after this
        groups = list(self.hosts.values()) if self.share.workers > 1 else []
        with contextlib.suppress(ray.exceptions.RayError):  # what does not end by itself dies with its host
            ray.get([group.close.remote() for group in groups], timeout=CLOSING_SECONDS)
        for actor in (*groups, *self._trainers(), self.registry):
            ray.kill(actor)
        with contextlib.suppress(Exception):
            self._note.delete()

    def _add(self) -> None:
        """Starts one more host."""
        name = f"{self.prefix}-host-{len(self.hosts)}"
        settings = self.config.model_dump()
        if self.share.workers == 1:
            own = _actor(TrainerActor, num_cpus=self.share.cpus, num_gpus=self.share.gpus, **self.where, **_HOST)
            host = own.options(name=name, namespace=NAMESPACE).remote(settings, self._inputs, self.trials)
            self._loading[host.ready.remote()] = name
        else:
            group = _actor(WorkerGroupActor, num_cpus=0, resources=ON_HEAD)
            host = group.options(name=name, namespace=NAMESPACE).remote(
                name, settings, (self._inputs,), self.trials, self.share, train_environment()
            )
        self.hosts[name] = host

    def _trainers(self) -> list[Any]:
        """The TrainerActors: those that train, or the one beside the worker groups."""
        return list(self.hosts.values()) if self.share.workers == 1 else [self._context]

    def _expected(self) -> int:
        return len(self._trainers())

    def _attend(self) -> None:
        """Follows the cluster until the pool ends: makes hosts where there is room, keeps the registry up to date."""
        while not self._over.wait(LOOK):
            with contextlib.suppress(Exception):  # Ray itself may be going away: then so is the search
                self._grow()
                self._settle()
                self._look()

    def _grow(self) -> None:
        if self.plan is None:
            return
        self._room, self._target = self.plan.room().now, self.plan.target()
        while len(self.hosts) - len(self._refused) < self._target and not self._over.is_set():
            self._add()

    def _settle(self) -> None:
        """Takes in hosts that come later. One that cannot be used, say because its data is missing, is left out."""
        loading = list(self._loading)
        for reference in ray.wait(loading, num_returns=len(loading), timeout=0)[0] if loading else ():
            name = self._loading[reference]
            try:
                ray.get(reference)
            except ray.exceptions.RayActorError:  # its machine left meanwhile; it comes back elsewhere
                self._loading[self.hosts[name].ready.remote()] = name
            except ray.exceptions.RayError as error:
                self._refused.add(name)
                self._log(f"a host that joined cannot train and is left out: {in_words(user_error_in(error))}")
                ray.kill(self.hosts[name])
            del self._loading[reference]

    def _look(self) -> None:
        self._seen = self.present()
        most = self._target if self.share.workers > 1 else None
        self.placed = ray.get(self.registry.attend.remote(self._seen, most), timeout=5 * LOOK)

    def _idle(self) -> Any:
        """A TrainerActor that is idle. When all stay busy for too long they are killed, and restart."""
        begin, killed = time.monotonic(), False
        while time.monotonic() - begin < AWAY:
            asked = {context.ping.remote(): context for context in self._trainers() if is_alive(context)}
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


_HOST: dict[str, Any] = {"concurrency_groups": {CONTROL: 1}}
_CONTEXT = "context"


def _silent(line: str) -> None: ...


def _actor(kind: type, **options: Any) -> Any:
    """Ray's types know neither all options nor the methods of actors that are made with some."""
    return ray.remote(max_restarts=-1, **options)(kind)
