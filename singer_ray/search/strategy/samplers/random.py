"""random: independent draws, which learn nothing."""

from __future__ import annotations

from optuna.samplers import BaseSampler, RandomSampler

from singer_ray.search.strategy.samplers.base import Sampler, SamplerTask


class _Random(Sampler):
    learns = False

    def make(self, task: SamplerTask) -> BaseSampler:
        return RandomSampler(seed=task.trial_seed)


SAMPLER = _Random()
