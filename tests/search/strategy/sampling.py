"""Spaces, studies and a score for the tests of samplers."""

from __future__ import annotations

import json
from typing import Any

import optuna
from optuna.trial import TrialState

from singer_ray.config import Config, load_preset
from singer_ray.search.space.space import SearchSpace, load_space
from singer_ray.search.strategy.samplers.grid import grid_exhausted
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.opening import create_study
from singer_ray.search.study.schema import METRICS

ONE = Objectives(("val/miou",), ("max",), "val/miou", "max")
TWO = Objectives(("val/miou", "student/parameters"), ("max", "min"), "val/miou", "max")

NUMBERS = {
    "method.rank": {"type": "int", "low": 4, "high": 32},
    "method.strength": {"type": "uniform", "low": 0.5, "high": 1.0},
    "train.lr": {"type": "loguniform", "low": 1e-3, "high": 1e-2},
}
CONDITIONS = {
    "method.refiner": {"type": "choice", "values": ["singer", "clip", "none"]},
    "method.clip.ratio": {"type": "uniform", "low": 1.0, "high": 1.6, "step": 0.2, "when": {"method.refiner": "clip"}},
    "method.variant": {"type": "choice", "values": ["recommended", "paper"], "when": {"method.refiner": "singer"}},
    "method.rank": {"type": "int", "low": 4, "high": 8, "step": 2, "when": {"method.variant": ["recommended"]}},
}
"""1 (none) + 4 (clip) + 3 (recommended) + 1 (paper) points."""

HUGE = {name: {"type": "int", "low": 1, "high": 60} for name in ("method.rank", "student.depth", "train.batch_size")}


def setting(sampler: str = "tpe", **more: Any) -> Config:
    return load_preset("demo").override(
        {"search.sampler": sampler, "search.trials": 12, "search.startup_trials": 4, **more}
    )


def spaced(tree: dict[str, Any]) -> SearchSpace:
    return load_space(tree, load_preset("demo"))


def score(values: dict[str, Any]) -> float:
    """Some function of a point."""
    return sum(len(v) if isinstance(v, str) else abs(v - 1) for v in values.values()) % 7


def run(study: optuna.Study, space: SearchSpace, count: int) -> list[dict[str, Any]]:
    suggested = []
    for _ in range(count):
        trial = study.ask()
        space(trial)
        value = score(trial.params)
        trial.set_user_attr(METRICS, {"val/miou": value})
        study.tell(trial, [value] * len(study.directions))
        suggested.append(trial.params)
    return suggested


def new_study(objectives: Objectives = ONE, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
    study = create_study(optuna.storages.InMemoryStorage(), "it", objectives)
    return optuna.load_study(study_name="it", storage=study._storage, sampler=sampler)


def asked(study: optuna.Study, space: SearchSpace, concurrent: int) -> list[str]:
    """Asks until the grid ends, with several trials under way that end in mixed order and states."""
    running: list[optuna.Trial] = []
    order = []
    while not grid_exhausted(study, space):
        trial = study.ask()
        space(trial)
        running.append(trial)
        order.append(json.dumps(trial.params, sort_keys=True))
        if len(running) == concurrent:
            done = running.pop(len(order) % concurrent)
            state = [TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED][len(order) % 3]
            study.tell(done, 1.0 if state == TrialState.COMPLETE else None, state=state)
    for trial in running:
        study.tell(trial, 1.0)
    return order
