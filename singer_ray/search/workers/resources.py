"""How many trials run at a time, and what the host of each holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from singer_ray.errors import UserError
from singer_ray.nodes import ray_cluster

if TYPE_CHECKING:
    from singer_ray.config import Config
    from singer_ray.nodes.limits import Room


@dataclass(frozen=True)
class Share:
    """What one trial holds."""

    workers: int
    cpus: float
    """Of each worker."""
    gpus: float
    """Of each worker."""
    here: bool = False
    """On the head alone: the other nodes could not save what they train."""

    @property
    def each(self) -> dict[str, float]:
        """What each worker holds; it cannot be split among machines."""
        held = {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})
        return held | (ray_cluster.ON_HEAD if self.here else {})


@dataclass(frozen=True)
class ResourcePlan:
    """Trials at a time, and what each holds."""

    concurrent: int
    """At a time, as far as can be told at the start; `target` follows the cluster."""
    share: Share
    wish: int = 1
    """At a time, however much room there is."""

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
        share = Share(workers, search.cpus_per_trial, gpus, here)
        plan = cls(1, share, search.concurrent or search.trials)
        what = "a trial" if workers == 1 else f"the {workers} workers of a trial"
        ray_cluster.wait_for_room(share.each, workers, what, log)
        return replace(plan, concurrent=plan.target())

    @property
    def gpus_held(self) -> float:
        """GPUs that the search holds while it runs, as far as can be told at the start."""
        return self.gpus_of(self.concurrent)

    def gpus_of(self, trials: int) -> float:
        """GPUs that so many trials hold."""
        return trials * self.share.workers * self.share.gpus

    def room(self) -> Room:
        """For how many trials the cluster has room."""
        return ray_cluster.room(self.share.each) // self.share.workers

    def target(self) -> int:
        """How many trials shall run at a time on the cluster as it is, machines that an autoscaler can get included.

        0 while there is no room at all.
        """
        room = self.room()
        return min(self.wish, room.now if room.most is None else room.most)


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
