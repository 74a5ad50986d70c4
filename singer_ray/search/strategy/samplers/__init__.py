"""Who suggests a trial's parameters: the samplers of `search.sampler`, a file each.

To add one, write a file here with a `Sampler` called SAMPLER, and name it in the type of `search.sampler`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, get_args

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from singer_ray.config import Config, SearchConfig
from singer_ray.errors import UserError
from singer_ray.search.strategy.discovery import discover
from singer_ray.search.strategy.samplers.base import Sampler, SamplerTask

if TYPE_CHECKING:
    from singer_ray.search.space.space import SearchSpace
    from singer_ray.search.study.objectives import Objectives

SAMPLERS: Mapping[str, Sampler] = discover(
    __name__, "SAMPLER", get_args(SearchConfig.model_fields["sampler"].annotation)
)
"""By the name that `search.sampler` takes."""


def make_sampler(
    config: Config,
    space: SearchSpace,
    objectives: Objectives,
    imported: Sequence[FrozenTrial] = (),
    *,
    number: int = 0,
) -> BaseSampler:
    """The sampler that `config.search` asks for, to suggest the parameters of one trial.

    Its random numbers follow from `config.seed` and the trial's `number`, all else from the study: an interrupted
    search goes on as it would have, with no state to restore.
    `imported` are the rows that a warm start brought: cmaes starts from ten or more; the others read the study.
    `check_sampler` tells whether it can take the space and the objectives.
    """
    seed = config.seed % 2**32
    trial_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SAMPLERS[config.search.sampler].make(
            SamplerTask(config.search, space, objectives, imported, seed, trial_seed)
        )


def check_sampler(config: Config, space: SearchSpace, objectives: Sequence[str]) -> None:
    """Raises UserError when `search.sampler` cannot take the space or the objectives, naming those that can.

    Asked before anything starts, of `search.objectives`: empty where they will follow from the data.
    """
    name = config.search.sampler
    refusal = SAMPLERS[name].refusal(space, objectives)
    if refusal:
        able = [other for other, sampler in SAMPLERS.items() if not sampler.refusal(space, objectives)]
        raise UserError(f"search.sampler {name} {refusal}. Allowed for this search: {', '.join(able)}.")


def exhausted(config: Config, space: SearchSpace, study: optuna.Study) -> bool:
    """Whether the sampler has nothing left to suggest."""
    return SAMPLERS[config.search.sampler].exhausted(space, study)


def remarks(config: Config, space: SearchSpace, study: optuna.Study) -> list[str]:
    """What someone who chose this sampler may not expect, a line each, for the screen before the first trial."""
    search = config.search
    sampler = SAMPLERS[search.sampler]
    lines = sampler.remarks(search, space, study)
    if not sampler.learns_from_stopped and search.scheduler != "none":
        lines.append(
            f"{search.sampler} learns only from trials that finish, and {search.scheduler} stops others before: "
            "--search.scheduler none lets it learn from all, tpe (the default) learns from stopped ones too"
        )
    return lines
