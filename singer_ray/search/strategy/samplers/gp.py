"""gp: a Gaussian process. It loads torch into the process that searches."""

from __future__ import annotations

from optuna.samplers import BaseSampler, GPSampler

from singer_ray.search.strategy.samplers.base import Sampler, SamplerTask


class _GaussianProcess(Sampler):
    takes_conditions = False
    learns_from_stopped = False

    def make(self, task: SamplerTask) -> BaseSampler:
        return GPSampler(
            seed=task.trial_seed, n_startup_trials=task.search.startup_trials, warn_independent_sampling=False
        )


SAMPLER = _GaussianProcess()
