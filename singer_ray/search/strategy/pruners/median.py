"""median: a trial ends whose best value so far is worse than the median of the others at that epoch.

Not before startup_trials have finished.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.pruners import BasePruner, MedianPruner

from singer_ray.search.strategy.pruners.base import Pruner, grace

if TYPE_CHECKING:
    from singer_ray.config import Config


class _Median(Pruner):
    def make(self, config: Config) -> BasePruner:
        return MedianPruner(n_startup_trials=config.search.startup_trials, n_warmup_steps=grace(config))


PRUNER = _Median()
