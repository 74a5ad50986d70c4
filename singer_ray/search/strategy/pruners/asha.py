"""asha: of the trials that reach a rung (grace_epochs x reduction_factor^k epochs), one in reduction_factor goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.pruners import BasePruner, SuccessiveHalvingPruner

from singer_ray.search.strategy.pruners.base import Pruner, grace

if TYPE_CHECKING:
    from singer_ray.config import Config


class _Asha(Pruner):
    def make(self, config: Config) -> BasePruner:
        return SuccessiveHalvingPruner(min_resource=grace(config), reduction_factor=config.search.reduction_factor)


PRUNER = _Asha()
