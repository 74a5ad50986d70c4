"""Who stops trials early: the pruners of `search.scheduler`, a file each.

To add one, write a file here with a `Pruner` called PRUNER, and name it in the type of `search.scheduler`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from optuna.pruners import BasePruner

from singer_ray.config import Config, SearchConfig
from singer_ray.search.strategy.discovery import discover
from singer_ray.search.strategy.pruners.base import Pruner

PRUNERS: Mapping[str, Pruner] = discover(
    __name__, "PRUNER", get_args(SearchConfig.model_fields["scheduler"].annotation)
)
"""By the name that `search.scheduler` takes."""


def make_pruner(config: Config) -> BasePruner:
    """The pruner that `search.scheduler` names."""
    return PRUNERS[config.search.scheduler].make(config)
