"""What a sampler of `search.sampler` is: the class that each file of this folder extends.

A sampler that keeps notes of its own in a study also names them in study/screened.py; others are not read back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from singer_ray.search.space.parameters import Categorical

if TYPE_CHECKING:
    import optuna
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from singer_ray.config import SearchConfig
    from singer_ray.search.space.space import SearchSpace
    from singer_ray.search.study.objectives import Objectives


@dataclass(frozen=True)
class SamplerTask:
    """What a sampler suggests for: one trial of a search."""

    search: SearchConfig
    space: SearchSpace
    objectives: Objectives
    imported: Sequence[FrozenTrial]
    """The rows that a warm start brought."""
    search_seed: int
    """The same for all trials of a search."""
    trial_seed: int


class Sampler(ABC):
    """A way to suggest parameters: what it can take, and the Optuna sampler that does it."""

    takes_conditions: ClassVar[bool] = True
    """Whether it learns parameters that only some trials have.

    Optuna does not refuse them where it does not: it draws what depends on them at random, for the whole search.
    """
    takes_choices: ClassVar[bool] = True
    takes_several_objectives: ClassVar[bool] = True
    learns: ClassVar[bool] = True
    """Whether its suggestions follow from earlier values."""
    learns_from_stopped: ClassVar[bool] = True
    """Whether it learns from trials that were stopped early too."""

    @abstractmethod
    def make(self, task: SamplerTask) -> BaseSampler:
        """The Optuna sampler for one trial. Its suggestions follow from the task and the study alone."""

    def refusal(self, space: SearchSpace, objectives: Sequence[str]) -> str | None:
        """Why it cannot take this search, as the end of a sentence that begins with its name; None where it can."""
        if not self.takes_conditions and space.conditional:
            name = next(name for name, parameter in space.parameters.items() if parameter.when)
            return f"does not learn parameters with conditions, such as {name}"
        choices = [name for name in varying(space) if isinstance(space.parameters[name], Categorical)]
        if not self.takes_choices and choices:
            return f"does not learn choices, such as {choices[0]}"
        if not self.takes_several_objectives and len(objectives) > 1:
            return f"takes one objective, not {len(objectives)} ({', '.join(objectives)})"
        return None

    def exhausted(self, space: SearchSpace, study: optuna.Study) -> bool:
        """Whether it has nothing left to suggest."""
        return False

    def remarks(self, search: SearchConfig, space: SearchSpace, study: optuna.Study) -> list[str]:
        """What someone who chose it may not expect of this search, one line each."""
        return []


def varying(space: SearchSpace) -> list[str]:
    """The parameters with more than one value."""
    return [name for name, distribution in space.distributions.items() if not distribution.single()]
