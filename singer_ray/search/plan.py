"""How many trials run at a time, and what the host of each holds."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from singer_ray import ray_cluster
from singer_ray.errors import UserError

if TYPE_CHECKING:
    from singer_ray.config import Config
    from singer_ray.search.pool import HostPool
    from singer_ray.storage import Folder


@dataclass(frozen=True)
class Plan:
    """Trials at a time, and what each holds."""

    concurrent: int
    workers: int
    cpus: float
    """Of each worker."""
    gpus: float
    """Of each worker."""

    @classmethod
    def of(cls, config: Config) -> Plan:
        """From the configuration and the cluster's resources. Raises UserError when not one trial has room."""
        search, there, workers = config.search, ray_cluster.resources(), config.train.workers
        gpus = search.gpus_per_trial
        if gpus is None:
            gpus = 1.0 if ray_cluster.has_gpus() and config.train.device != "cpu" else 0.0
        if workers > 1:
            _check_workers(config, gpus)
        # Counted in workers, none of which can be split among machines: all trials that run fit at once.
        most = ray_cluster.places({"CPU": search.cpus_per_trial, "GPU": gpus}) // workers
        wanted = search.concurrent or min(most, search.trials)
        if wanted > most or not wanted:
            each = f"{search.cpus_per_trial * workers:g} CPUs and {gpus * workers:g} GPUs each"
            raise UserError(
                f"{max(wanted, 1)} trials at a time need {each}; this "
                f"Ray cluster can never offer more than {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs, "
                f"room for {most}. "
                "Lower --concurrent, --workers, search.cpus_per_trial or search.gpus_per_trial, or connect to a larger "
                "cluster."
            )
        return cls(wanted, workers, search.cpus_per_trial, gpus)

    @property
    def gpus_held(self) -> float:
        """GPUs that the search holds while it runs."""
        return self.concurrent * self.workers * self.gpus

    def hosts(self, config: Config, inputs: Any, trials: Folder) -> HostPool:
        """The hosts, on their way."""
        from singer_ray.search.pool import HostPool

        prefix = f"search-{uuid.uuid4().hex[:8]}"
        return HostPool(config, inputs, trials, self.concurrent, cpus=self.cpus, gpus=self.gpus, prefix=prefix)


def _check_workers(config: Config, gpus: float) -> None:
    """Raises UserError for what trials of several workers cannot have."""
    from singer_ray.training.launch import runs_in_ray

    runs_in_ray(config)
    workers = config.train.workers
    if 0 < gpus < 1:
        raise UserError(
            f"search.gpus_per_trial {gpus:g} with --workers {workers}: NCCL wants a GPU of its own for each worker. "
            "Use 1 (it counts for each worker), or --workers 1."
        )
    if config.train.device == "cuda" and not gpus:
        raise UserError(
            f"train.device is 'cuda', but the {workers} workers of a trial would hold no GPU. "
            "Set search.gpus_per_trial 1 on a cluster with GPUs, or train.device cpu."
        )
