"""Studies for tests: an AskTell over a study in memory, and trials played through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from singer_ray.config import load_preset
from singer_ray.search.driver.ask_tell import AskTell, StudySpec
from singer_ray.search.space.space import load_space
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.opening import create_study

MIOU = Objectives(("val/miou",), ("max",), "val/miou", "max")
TWO = Objectives(("val/miou", "student/parameters"), ("max", "min"), "val/miou", "max")
APART = Objectives(("val/miou",), ("max",), "val/depth_rmse", "min")
"""Stopped by another metric than the one that is optimised, with the other direction."""
RATE = {"train.lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2}}


def new_ask_tell(
    objectives: Objectives = MIOU,
    *,
    epochs: int = 6,
    trials: int = 100,
    space: Mapping[str, Any] = RATE,
    study: optuna.Study | None = None,
    **more: Any,
) -> AskTell:
    """An AskTell with random suggestions, over a new study in memory unless one is given."""
    if study is None:
        study = create_study(optuna.storages.InMemoryStorage(), "s", objectives)
        study.sampler = optuna.samplers.RandomSampler(seed=0)
    more.setdefault("pruner", optuna.pruners.NopPruner())
    loaded = load_space(space, load_preset("demo"))
    return AskTell(study, StudySpec(loaded, objectives, epochs, trials, "/runs/x/trials"), **more)


def play(
    ask_tell: AskTell, curve: Sequence[float | None], last: Mapping[str, Any] | None = None, *, error: bool = False
) -> str:
    """One trial: reports val/miou by epoch (None: no such metric), `last` with the last one. The state it is told."""
    assignment = ask_tell.ask(f"t{len(ask_tell.study.trials)}")
    assert assignment is not None
    result: dict[str, Any] = {}
    for epoch, value in enumerate(curve, 1):
        result = {"epoch": epoch} if value is None else {"epoch": epoch, "val/miou": value}
        if epoch == len(curve):
            result |= last or {}
        ask_tell.report(assignment.number, result)
    return ask_tell.end(assignment.number, result or last or None, error=error)
