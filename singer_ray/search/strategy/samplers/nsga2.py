"""nsga2: a genetic algorithm, for several objectives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optuna.samplers import BaseSampler, NSGAIISampler

from singer_ray.search.strategy.samplers.base import Sampler, SamplerTask, varying

if TYPE_CHECKING:
    from singer_ray.search.space.space import SearchSpace

GENERATIONS = 5
"""How many generations a search has time for: Optuna's population of 50 would make most searches random."""
FIRST_GENERATION = {NSGAIISampler._get_generation_key(): 0}
"""With this system attribute, imported rows are its first generation; it ignores rows without it."""


class _NSGA2(Sampler):
    takes_conditions = False
    learns_from_stopped = False

    def make(self, task: SamplerTask) -> BaseSampler:
        population = min(max(task.search.trials // GENERATIONS, 4), 50)
        return NSGAIISampler(seed=task.trial_seed, population_size=population)

    def refusal(self, space: SearchSpace, objectives: Sequence[str]) -> str | None:
        too_few = "needs two parameters or more to cross" if len(varying(space)) < 2 else None
        return super().refusal(space, objectives) or too_few


SAMPLER = _NSGA2()
