"""Which parameters decided whether a trial was good."""

from __future__ import annotations

import warnings

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, create_trial

from singer_ray.reporting.reading.record import SearchRecord

AT_LEAST = 10
"""With fewer finished trials there are no importances."""
LEADING = 5
"""At least this many trials count as good."""


def importances(search: SearchRecord, objective: int) -> dict[str, float]:
    """Shares of importance (they sum to 1) for one objective; empty where too few trials finished to say anything.

    PED-ANOVA: how much the distribution of a parameter among the good trials differs from that among all. It is fast,
    and counts a conditional parameter among the trials that have it.
    """
    finished = [t for t in search.finished if t.values]
    varied = {n for n, d in search.distributions.items() if not d.single()}
    if len(finished) < AT_LEAST or len(varied) < 2:
        return {}
    sign = 1.0 if search.objectives.modes[objective] == "min" else -1.0
    rows: list[FrozenTrial] = []
    for trial in finished:
        own = {n: v for n, v in trial.parameters.items() if n in varied and _within(search, n, v)}
        assert trial.values is not None
        rows.append(
            create_trial(
                params=own,
                distributions={n: search.distributions[n] for n in own},
                value=sign * trial.values[objective],
            )
        )
    if len({row.value for row in rows}) < 2:
        return {}
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            study = optuna.create_study(direction="minimize")
            study.add_trials(rows)
            evaluator = PedAnovaImportanceEvaluator(target_quantile=min(0.5, max(0.1, LEADING / len(rows))))
            shares = get_param_importances(study, evaluator=evaluator)
        finally:
            optuna.logging.set_verbosity(level)
    return {name: float(value) for name, value in shares.items()}


def _within(search: SearchRecord, name: str, value: object) -> bool:
    """Whether a value belongs to the range as it is now: a resumed search may have narrowed it."""
    distribution = search.distributions[name]
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return bool(distribution._contains(distribution.to_internal_repr(value)))
