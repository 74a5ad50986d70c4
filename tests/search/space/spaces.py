"""Spaces for tests, and what they draw."""

from __future__ import annotations

from typing import Any

import optuna

from singer_ray.config import Config
from singer_ray.search.space.space import load_space

RANK = {"type": "int", "low": 2, "high": 8}
CONDITIONAL = {
    "method.rank": {"type": "int", "low": 2, "high": 8, "when": {"method.refiner": "singer"}},
    "method.clip.ratio": {"type": "uniform", "low": 1.0, "high": 2.0, "when": {"method.refiner": ["clip"]}},
    "method.refiner": {"type": "choice", "values": ["singer", "clip", "none"]},
}


def draws(tree: dict[str, Any], config: Config, count: int = 200) -> list[dict[str, Any]]:
    space = load_space(tree, config)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [study.ask() for _ in range(count)]
    for trial in trials:
        space(trial)
    return [trial.params for trial in trials]
