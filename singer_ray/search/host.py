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
from singer_ray.search.ledger import HISTORY
from singer_ray.search.study import CHECKPOINT, FAULT
from singer_ray.storage import Folder

if TYPE_CHECKING:
    from singer_ray.training.timing import StepTimes
    from singer_ray.training.workbench import Workbench

Key = tuple[str, str]
"""(trial label, incarnation): a late `leave` of an earlier incarnation must not evict a resumed trial."""
SAVED = "checkpoint.pt"


class HostedTrainer:
    """One member at a time on a workbench that stays. Runs as a Ray actor, one per concurrent trial.

    A fault of the member's own (a bad value, a loss that diverged) comes back in words; anything else is raised, and
    Tune starts the trial again, which goes on from its checkpoint in `trials`/LABEL.
    """

    def __init__(self, config: Mapping[str, Any], inputs: Any, trials: Folder) -> None:
        # torch comes with these: only the host pays for it
        from singer_ray.training.launch import Inputs

        self.config = Config.model_validate(config)
        self.inputs: Inputs = inputs or Inputs()
        self.trials = trials
        self.key: Key | None = None
        self.member: Any = None
        self.epochs: Iterator[dict[str, float]] = iter(())

    @functools.cached_property
    def bench(self) -> Workbench:
        """Made by the first call: of an actor that dies in its constructor, nothing but text is left."""
        return self.inputs.workbench(self.config)

    def ready(self) -> list[str]:
        """The metrics that trials report after every epoch, best first for a default."""
        from singer_ray.training.loop import EPOCH_METRICS

        return [*self.bench.suite.metric_names(), *EPOCH_METRICS]

    def check(self, corners: list[dict[str, Any]]) -> str | None:
        """The first fault of building a member at each of these settings, in words; None when all can be built."""
        from singer_ray.training.member import Member

        for corner in corners:
            try:
                Member(self.bench, Config.model_validate(corner))
            except UserError as error:
                return str(error)
        return None

    def timing(self) -> StepTimes:
        """How long the parts of a trial take here; see `timing`."""
        from singer_ray.training.timing import timing

        return timing(self.bench, self.config)

    def join(self, key: Key, overrides: Mapping[str, Any]) -> dict[str, Any] | None:
        """Makes the member of a trial from its checkpoint, or from scratch when it has none.

        Returns the result that was saved with the checkpoint, with what earlier epochs reported under `history`; the
        trial's fault in words; or None for one that starts.
        """
        from singer_ray.training.loop import epochs
        from singer_ray.training.member import Member

        self._release()
        try:
            config = self.config.override(overrides)
            state = self._saved(key[0], overrides)
            self.member = Member.begin(self.bench, config, state)
        except UserError as error:
            return {FAULT: str(error)}
        self.key, self.epochs = key, epochs(self.member)
        self.overrides = dict(overrides)
        self.history: list[Any] = state["history"] if state else []
        self.seconds: float = state["seconds"] if state else 0.0
        if state is None:
            return None
        return {**state["metrics"], HISTORY: self.history[:-1], "trained_seconds": self.seconds, **self._place(key[0])}

    def epoch(self, key: Key) -> dict[str, Any]:
        """Trains and saves one epoch of the trial: its metrics, or its fault in words under `fault`."""
        from singer_ray.training import checkpoint as checkpoints

        if key != self.key:
            raise RuntimeError(f"trial {key[0]} is not on this host any more")
        begin = time.perf_counter()
        try:
            metrics = next(self.epochs)
        except UserError as error:
            return {FAULT: str(error)}
        self.seconds += time.perf_counter() - begin
        self.history.append([metrics["epoch"], {k: v for k, v in metrics.items() if not k.startswith("train/")}])
        content = checkpoints.to_bytes(self.member.state() | {
            "metrics": metrics, "history": self.history, "seconds": self.seconds, "overrides": self.overrides,
        })  # fmt: skip
        self.trials.write(f"{key[0]}/{SAVED}", content)
        return metrics | {"trained_seconds": self.seconds, **self._place(key[0])}

    def leave(self, key: Key) -> None:
        """Drops the member of a trial, unless another has taken its place."""
        if key == self.key:
            self._release()

    def final_metrics(self, label: str, overrides: Mapping[str, Any]) -> dict[str, float]:
        """What the last epoch of a run reports, for a student that was stopped before it."""
        from singer_ray.training.loop import final_metrics
        from singer_ray.training.member import Member

        config = self.config.override(overrides)
        return final_metrics(Member.begin(self.bench, config, self._saved(label, overrides)))

    def _saved(self, label: str, overrides: Mapping[str, Any]) -> dict[str, Any] | None:
        """The trial's checkpoint. One of other settings is not this trial's: it belonged to a row that was lost."""
        from singer_ray.training import checkpoint as checkpoints

        content = self.trials.read(f"{label}/{SAVED}")
        state = None if content is None else checkpoints.from_bytes(content)
        return state if state and state["overrides"] == dict(overrides) else None

    def _place(self, label: str) -> dict[str, str]:
        return {CHECKPOINT: f"{self.trials.address}/{label}/{SAVED}"}

    def _release(self) -> None:
        self.key, self.member, self.epochs = None, None, iter(())


class HostRegistry:
    """Which trial is on which host. Runs as a Ray actor.

    There may be more trials than hosts: those that were announced first come first.
    """

    def __init__(self, hosts: list[str]) -> None:
        self.hosts = hosts
        self.places: dict[str, str] = {}
        self.queue: list[str] = []
        self.retired: set[str] = set()

    def announce(self, trial: str) -> None:
        """The trial will ask for a place."""
        if trial not in self.queue and trial not in self.places:
            self.queue.append(trial)

    def place(self, trial: str) -> str | None:
        """The name of the trial's host; None while others are before it, "" when the search has ended the trial.

        Asked again it stays the same.
        The host of a trial whose actor died may still train its epoch: two hosts must not write one checkpoint.
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

    Raises UserError when a host cannot be made (no such teacher, no such folder, ...).
    """

    def __init__(
        self, config: Config, inputs: Any, trials: Folder, count: int, *, cpus: float, gpus: float, prefix: str
    ) -> None:
        # The reference is kept: a host that is restarted reads it again.
        self._inputs = None if inputs is None else ray.put(inputs)
        host = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=-1, scheduling_strategy="SPREAD")(HostedTrainer)
        # Any: Ray's types do not know the methods of actors that are made with options.
        self.hosts: dict[str, Any] = {
            name: host.options(name=name).remote(config.model_dump(), self._inputs, trials)
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

    def timing(self) -> StepTimes:
        """The mean over all hosts, timed at the same time. Raises UserError."""
        from singer_ray.training.timing import StepTimes

        try:
            return StepTimes.mean(ray.get([host.timing.remote() for host in self.hosts.values()]))
        except ray.exceptions.RayError as error:
            raise user_error_in(error) from error

    def any(self) -> Any:
        """One of the hosts, for work that is not a trial's."""
        return next(iter(self.hosts.values()))

    def places(self) -> Places:
        """A watcher that keeps the registry up to date."""
        return Places(self.registry)

    def stop(self) -> None:
        """Ends all hosts."""
        for actor in (*self.hosts.values(), self.registry):
            ray.kill(actor)


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
