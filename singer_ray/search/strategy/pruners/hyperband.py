"""hyperband: several ladders like that of asha, each with a later first rung."""

from __future__ import annotations

from typing import TYPE_CHECKING

import optuna
from optuna.pruners import BasePruner, HyperbandPruner

from singer_ray.search.strategy.pruners.base import Pruner, grace

if TYPE_CHECKING:
    from singer_ray.config import Config


class _Hyperband(Pruner):
    def make(self, config: Config) -> BasePruner:
        return _Brackets(
            min_resource=grace(config),
            max_resource=config.train.epochs,
            reduction_factor=config.search.reduction_factor,
        )


class _Brackets(HyperbandPruner):
    """HyperbandPruner that reads the study it is given, which may be a view of another direction."""

    def _create_bracket_study(self, study: optuna.Study, bracket_id: int) -> optuna.Study:
        bracket = super()._create_bracket_study(study, bracket_id)
        bracket._directions = study._directions
        return bracket


PRUNER = _Hyperband()
