"""Early stopping by what the study knows (Optuna's pruners): a resumed search goes on stopping by the same rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner

if TYPE_CHECKING:
    import optuna

    from singer_ray.config import Config


def make_pruner(config: Config) -> BasePruner:
    """The pruner that `search.scheduler` names. All of them work asynchronously: no trial ever waits for another.

    asha: of the trials that reach a rung (grace_epochs x reduction_factor^k epochs), one in reduction_factor goes on.
    hyperband: several such ladders, with later and later first rungs. median: a trial whose best value so far is worse
    than the median of the others' at that epoch ends, once startup_trials have finished.
    """
    search = config.search
    grace = min(search.grace_epochs, config.train.epochs)
    if search.scheduler == "asha":
        return SuccessiveHalvingPruner(min_resource=grace, reduction_factor=search.reduction_factor)
    if search.scheduler == "hyperband":
        return _Brackets(min_resource=grace, max_resource=config.train.epochs, reduction_factor=search.reduction_factor)
    if search.scheduler == "median":
        return MedianPruner(n_startup_trials=search.startup_trials, n_warmup_steps=grace)
    return NopPruner()


class _Brackets(HyperbandPruner):
    """HyperbandPruner that reads the study it is given, which for several objectives is a view of one direction."""

    def _create_bracket_study(self, study: optuna.Study, bracket_id: int) -> optuna.Study:
        bracket = super()._create_bracket_study(study, bracket_id)
        bracket._directions = study._directions
        return bracket
