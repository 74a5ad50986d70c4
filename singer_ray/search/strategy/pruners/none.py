"""none: every trial trains to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.pruners import BasePruner, NopPruner

from singer_ray.search.strategy.pruners.base import Pruner

if TYPE_CHECKING:
    from singer_ray.config import Config


class _None(Pruner):
    def make(self, config: Config) -> BasePruner:
        return NopPruner()


PRUNER = _None()
