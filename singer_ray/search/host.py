"""The actor that trains: it holds torch, teacher and data, and outlives the trials that it serves."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import ray

from singer_ray.config import Config
from singer_ray.errors import UserError
from singer_ray.ray_cluster import ON_HEAD, user_error_in
from singer_ray.search.optuna_search import FAULT

if TYPE_CHECKING:
    from singer_ray.training.workbench import Workbench

Key = tuple[str, str]
"""(trial id, incarnation): a late `leave` of an earlier incarnation must not evict a resumed trial."""


class HostedTrainer:
    """One member at a time on a workbench that stays. Runs as a Ray actor, one per concurrent trial.

    A fault of the member's own (a bad value, a loss that diverged) comes back in words; anything else is raised, and
    Tune restores the trial from its checkpoint.
    """

    def __init__(self, config: Mapping[str, Any], inputs: Any) -> None:
        # torch comes with these: only the host pays for it
        from singer_ray.training.launch import Inputs

        self.config = Config.model_validate(config)
        self.inputs: Inputs = inputs or Inputs()
        self.key: Key | None = None
        self.member: Any = None
        self.epochs: Iterator[dict[str, float]] = iter(())

    @functools.cached_property
    def bench(self) -> Workbench:
        """Made by the first call: of an actor that dies in its constructor, nothing but text is left."""
        return self.inputs.workbench(self.config)

    def ready(self) -> list[str]:
        """The metrics that trials will report, best first for a default."""
        return self.bench.suite.metric_names()

    def check(self, corners: list[dict[str, Any]]) -> str | None:
        """The first fault of building a member at each of these settings, in words; None when all can be built."""
        from singer_ray.training.member import Member

        for corner in corners:
            try:
                Member(self.bench, Config.model_validate(corner))
            except UserError as error:
                return str(error)
        return None

    def join(self, key: Key, parameters: Mapping[str, Any], checkpoint: bytes | None) -> str | None:
        """Makes the member of a trial, from its checkpoint or from scratch. Returns its fault in words, if any."""
        from singer_ray.training import checkpoint as checkpoints
        from singer_ray.training.loop import epochs
        from singer_ray.training.member import Member

        self._release()
        try:
            config = self.config.override(parameters)
            state = checkpoints.from_bytes(checkpoint) if checkpoint is not None else None
            self.member = Member.begin(self.bench, config, state)
        except UserError as error:
            return str(error)
        self.key, self.epochs = key, epochs(self.member)
        return None

    def epoch(self, key: Key) -> dict[str, Any]:
        """Trains one epoch of the trial: its metrics, or its fault in words under `fault`."""
        if key != self.key:
            raise RuntimeError(f"trial {key[0]} is not on this host any more")
        begin = time.perf_counter()
        try:
            metrics = next(self.epochs, None)
            if metrics is None:  # restored behind its last epoch: only the report was lost
                metrics = self._report_again()
        except UserError as error:
            return {FAULT: str(error)}
        return metrics | {"epoch_seconds": time.perf_counter() - begin}

    def save(self, key: Key) -> bytes:
        """The trial's checkpoint."""
        from singer_ray.training import checkpoint as checkpoints

        if key != self.key:
            raise RuntimeError(f"trial {key[0]} is not on this host any more")
        return checkpoints.to_bytes(self.member.state())

    def leave(self, key: Key) -> None:
        """Drops the member of a trial, unless another has taken its place."""
        if key == self.key:
            self._release()

    def final_metrics(self, parameters: Mapping[str, Any], checkpoint: bytes) -> dict[str, float]:
        """What the last epoch of a run reports, for a student that was stopped before it."""
        from singer_ray.training import checkpoint as checkpoints
        from singer_ray.training.loop import final_metrics
        from singer_ray.training.member import Member

        return final_metrics(
            Member.begin(self.bench, self.config.override(parameters), checkpoints.from_bytes(checkpoint))
        )

    def _report_again(self) -> dict[str, float]:
        from singer_ray.training.loop import final_metrics

        return {"epoch": self.config.train.epochs, "images_per_second": 0.0, **final_metrics(self.member)}

    def _release(self) -> None:
        self.key, self.member, self.epochs = None, None, iter(())


class HostRegistry:
    """Which trial is on which host. Runs as a Ray actor."""

    def __init__(self, hosts: list[str]) -> None:
        self.hosts = hosts
        self.places: dict[str, str] = {}

    def place(self, trial_id: str) -> str:
        """The name of the host with the fewest trials, which is now this trial's."""
        self.places.pop(trial_id, None)
        loads = {name: list(self.places.values()).count(name) for name in self.hosts}
        self.places[trial_id] = min(self.hosts, key=lambda name: loads[name])
        return self.places[trial_id]

    def release(self, trial_id: str) -> None:
        """The trial has ended."""
        self.places.pop(trial_id, None)


class HostPool:
    """The hosts of a search and their registry, alive until `stop` or until the driver ends.

    Raises UserError when a host cannot be made (no such teacher, no such folder, ...).
    """

    def __init__(self, config: Config, inputs: Any, count: int, *, cpus: float, gpus: float, prefix: str) -> None:
        # The reference is kept: a host that is restarted reads it again.
        self._inputs = None if inputs is None else ray.put(inputs)
        host = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=-1, scheduling_strategy="SPREAD")(HostedTrainer)
        # Any: Ray's types do not know the methods of actors that are made with options.
        self.hosts: dict[str, Any] = {
            name: host.options(name=name).remote(config.model_dump(), self._inputs)
            for name in (f"{prefix}-host-{n}" for n in range(count))
        }
        self.registry_name = f"{prefix}-registry"
        registry = ray.remote(num_cpus=0, max_restarts=-1, resources=ON_HEAD)(HostRegistry)
        self.registry: Any = registry.options(name=self.registry_name).remote(list(self.hosts))

    def wait(self, say: Callable[[str], None]) -> list[str]:
        """Blocks until all hosts stand; returns the metrics that trials will report, best first."""
        waiting = {host.ready.remote(): name for name, host in self.hosts.items()}
        metrics: list[str] = []
        while waiting:
            done, _ = ray.wait(list(waiting), timeout=30)
            for reference in done:
                waiting.pop(reference)
                try:
                    metrics = ray.get(reference)
                except ray.exceptions.RayError as error:
                    raise user_error_in(error) from error
            if not done:
                say(f"waiting for {len(waiting)} of {len(self.hosts)} hosts: the cluster is still making room")
        return metrics

    def any(self) -> Any:
        """One of the hosts, for work that is not a trial's."""
        return next(iter(self.hosts.values()))

    def stop(self) -> None:
        """Ends all hosts."""
        for actor in (*self.hosts.values(), self.registry):
            ray.kill(actor)
