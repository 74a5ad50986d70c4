"""How many trials run at a time, and what the host of each holds."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from singer_ray.errors import UserError
from singer_ray.nodes import ray_cluster

if TYPE_CHECKING:
    from singer_ray.config import Config
    from singer_ray.nodes.limits import Room
    from singer_ray.search.workers.pool import HostPool
    from singer_ray.storage import Folder


@dataclass(frozen=True)
class ResourcePlan:
    """Trials at a time, and what each holds."""

    concurrent: int
    """At a time, as far as can be told at the start; `target` follows the cluster."""
    workers: int
    cpus: float
    """Of each worker."""
    gpus: float
    """Of each worker."""
    wish: int = 1
    """At a time, however much room there is."""
    here: bool = False
    """All on the head: the other nodes could not save what they train."""

    @classmethod
    def of(cls, config: Config, log: Callable[[str], None] = print, *, here: bool = False) -> ResourcePlan:
        """From the configuration and the cluster, once one trial has room, or would when the autoscaler is asked.

        Raises UserError when not one trial will ever have room.
        """
        search, workers = config.search, config.train.workers
        gpus = search.gpus_per_trial
        if gpus is None:
            gpus = 1.0 if config.train.device != "cpu" and ray_cluster.has_gpus(log) else 0.0
        if workers > 1:
            _check_workers(config, gpus)
        plan = cls(1, workers, search.cpus_per_trial, gpus, search.concurrent or search.trials, here)
        what = "a trial" if workers == 1 else f"the {workers} workers of a trial"
        ray_cluster.wait_for_room(plan.each, workers, what, log)
        return replace(plan, concurrent=plan.target())

    @property
    def each(self) -> dict[str, float]:
        """What a trial's host holds, or each of a trial's workers, none of which can be split among machines."""
        return {"CPU": self.cpus, "GPU": self.gpus} | (ray_cluster.ON_HEAD if self.here else {})

    @property
    def gpus_held(self) -> float:
        """GPUs that the search holds while it runs, as far as can be told at the start."""
        return self.gpus_of(self.concurrent)

    def gpus_of(self, trials: int) -> float:
        """GPUs that so many trials hold."""
        return trials * self.workers * self.gpus

    def room(self) -> Room:
        """For how many trials the cluster has room."""
        return ray_cluster.room(self.each) // self.workers

    def target(self) -> int:
        """Trials that shall run at a time on the cluster as it is: those for which an autoscaler gets machines count.

        0 while there is no room at all.
        """
        room = self.room()
        return min(self.wish, room.now if room.most is None else room.most)

    def hosts(self, config: Config, inputs: Any, trials: Folder) -> HostPool:
        """The hosts, on their way."""
        from singer_ray.search.workers.pool import HostPool

        prefix = f"search-{uuid.uuid4().hex[:8]}"
        return HostPool(
            config, inputs, trials, self.concurrent, cpus=self.cpus, gpus=self.gpus, prefix=prefix, plan=self
        )


def _check_workers(config: Config, gpus: float) -> None:
    """Raises UserError for what trials of several workers cannot have."""
    from singer_ray.training.launch import runs_in_ray

    runs_in_ray(config)
    workers = config.train.workers
    if 0 < gpus < 1:
        raise UserError(
            f"search.gpus_per_trial {gpus:g} with --workers {workers}: NCCL needs a GPU for each worker. "
            "Use 1 (it counts for each worker), or --workers 1."
        )
    if config.train.device == "cuda" and not gpus:
        raise UserError(
            f"train.device is 'cuda', but the {workers} workers of a trial would hold no GPU. "
            "Set search.gpus_per_trial 1 on a cluster with GPUs, or train.device cpu."
        )
