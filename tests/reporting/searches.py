"""Folders of searches as singer_ray.tune leaves them, with real Optuna rows, made in a moment."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState, create_trial

from singer_ray.config import load_preset
from singer_ray.layout import JOURNAL
from singer_ray.metrics import MIN, direction
from singer_ray.search.study.objectives import Objectives, front
from singer_ray.search.study.opening import create_study, storage_of
from singer_ray.search.study.schema import COMPLETE, FAIL, PRUNED, RUNNING

EPOCHS = 9
RUNGS = (2, 6)
BEGIN = datetime(2026, 5, 4, 9, 30)
RANK: dict[str, BaseDistribution] = {"method.rank": IntDistribution(4, 32, log=True)}
SINGER: dict[str, BaseDistribution] = {
    **RANK,
    "method.strength": FloatDistribution(0.5, 1.0),
    "method.loss.outlier": FloatDistribution(0.02, 1.0, log=True),
    "method.outlier_quantile": FloatDistribution(0.9, 0.98),
    "train.lr": FloatDistribution(1e-3, 8e-3, log=True),
}
CHOICES: tuple[CategoricalChoiceType, ...] = ("singer", "clip", "layernorm", "none")
REFINERS: dict[str, BaseDistribution] = {
    "method.refiner": CategoricalDistribution(CHOICES),
    "train.lr": FloatDistribution(1e-3, 8e-3, log=True),
    "method.rank": IntDistribution(4, 32, log=True),
    "method.strength": FloatDistribution(0.5, 1.0),
    "method.clip.ratio": FloatDistribution(1.0, 4.0),
}
NEEDS = {"method.rank": "singer", "method.strength": "singer", "method.clip.ratio": "clip"}
"""Parameter -> the refiner with which alone it is drawn, where refiners are searched."""


def fake_search(
    folder: Path,
    *,
    trials: int = 40,
    space: Mapping[str, BaseDistribution] = SINGER,
    objectives: Sequence[str] = ("val/miou",),
    states: Sequence[str] = (),
    imported: int = 0,
    repeats: int = 0,
    sessions: int = 1,
    epochs: int = EPOCHS,
    files: bool = True,
    seed: int = 0,
) -> Path:
    """The folder of a search. Values are a formula of the parameters; ASHA's stops are imitated.

    `states` are those of the first trials; the others are as they come. Without `files` there is the study alone.
    """
    folder.mkdir(parents=True)
    rng = random.Random(seed)
    modes = tuple(direction(name) for name in objectives)
    wanted = Objectives(tuple(objectives), modes, objectives[0], modes[0])
    study = create_study(storage_of(None, folder), folder.name, wanted, epochs=epochs, space=dict.fromkeys(space))
    rows = [
        _row(n, rng, space, wanted, epochs, states[n] if n < len(states) else None, imported=n >= trials)
        for n in range(trials + imported)
    ]
    study.add_trials(rows)
    if files:
        _write_files(folder, study, wanted, rng, repeats, sessions, space, epochs)
    return folder


def _row(
    number: int,
    rng: random.Random,
    space: Mapping[str, BaseDistribution],
    objectives: Objectives,
    epochs: int,
    state: str | None,
    *,
    imported: bool,
) -> optuna.trial.FrozenTrial:
    parameters = _draw(rng, space)
    quality = _quality(parameters) + rng.gauss(0, 0.012)
    if state is None:
        fate = rng.random()
        state = FAIL if fate < 0.06 else PRUNED if quality < 0.46 + 0.02 * rng.random() else COMPLETE
    last = {COMPLETE: epochs, PRUNED: rng.choice(RUNGS), RUNNING: 3, FAIL: rng.choice([0, 1])}[state]
    curve = {n: quality * (1 - math.exp(-3.2 * n / epochs)) + rng.gauss(0, 0.004) for n in range(1, last + 1)}
    metrics = {name: _value(name, parameters, curve.get(last, 0.0)) for name in objectives.names} if last else {}
    if last:
        metrics |= {"val/miou": curve[last], "val/linear_top1": min(1.0, 1.4 * curve[last]), "epoch": float(last)}
    seconds = 6.4 * last + rng.random() + 1
    begin = BEGIN + timedelta(seconds=(number // 4) * 48 + 2 * rng.random())
    attributes: dict[str, Any] = {"trial_id": f"{number:03d}-abc", "seconds": seconds, "metrics": metrics}
    if state == FAIL:
        attributes["fault"] = f"method.rank is {parameters.get('method.rank')}: loss <b>diverged</b> & stopped"
    if imported:
        attributes["imported_from"] = "s3://bucket/earlier"
    row = create_trial(
        state=TrialState[state],
        params=parameters,
        distributions={n: space[n] for n in parameters},
        values=[metrics[name] for name in objectives.names] if state == COMPLETE else None,
        intermediate_values={n: _value(objectives.stop_metric, parameters, reached) for n, reached in curve.items()},
        user_attrs=attributes,
    )
    row.datetime_start = begin
    row.datetime_complete = None if state == RUNNING else begin + timedelta(seconds=seconds)
    return row


def _draw(rng: random.Random, space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    drawn: dict[str, Any] = {}
    for name, distribution in space.items():
        if "method.refiner" in space and name in NEEDS and drawn.get("method.refiner") != NEEDS[name]:
            continue
        if isinstance(distribution, CategoricalDistribution):
            drawn[name] = rng.choice(distribution.choices)
        elif isinstance(distribution, IntDistribution):
            drawn[name] = round(math.exp(rng.uniform(math.log(distribution.low), math.log(distribution.high))))
        elif isinstance(distribution, FloatDistribution):
            low, high = distribution.low, distribution.high
            drawn[name] = (
                math.exp(rng.uniform(math.log(low), math.log(high))) if distribution.log else rng.uniform(low, high)
            )
    return drawn


def _quality(parameters: Mapping[str, Any]) -> float:
    base: float = {"singer": 0.5, "layernorm": 0.49, "clip": 0.43, "none": 0.3}[
        parameters.get("method.refiner", "singer")
    ]
    base -= 0.05 * math.log(parameters.get("train.lr", 4e-3) / 4e-3) ** 2
    base += 0.02 * math.log(parameters.get("method.rank", 12) / 12)
    return base - 0.4 * (float(parameters.get("method.strength", 0.9)) - 0.9) ** 2


def _value(name: str, parameters: Mapping[str, Any], reached: float) -> float:
    if name == "student/parameters":
        return 90_000.0 + 2000 * float(parameters.get("method.rank", 16))
    if name == "val/depth_rmse":
        return 0.2 - 0.2 * reached + 0.01 * float(parameters.get("method.strength", 0.9))
    return float(reached)


def _write_files(
    folder: Path,
    study: optuna.Study,
    objectives: Objectives,
    rng: random.Random,
    repeats: int,
    sessions: int,
    space: Mapping[str, BaseDistribution],
    epochs: int,
) -> None:
    config = load_preset("demo").override({"train.epochs": epochs, "search.study": "postgresql://me:hunter2@db/x"})
    (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    (folder / "space.yaml").write_text("".join(f"{name}: {{}}\n" for name in space), encoding="utf-8")
    rows = [r for r in study.get_trials(deepcopy=False) if "imported_from" not in r.user_attrs]
    ends = [r.datetime_complete for r in rows if r.datetime_complete]
    finish = max(ends, default=BEGIN)
    step = (finish - BEGIN) / sessions
    (folder / "search.json").write_text(
        json.dumps(
            {
                "name": folder.name,
                "study": None,
                "objectives": objectives.as_flags(),
                "stop_metric": objectives.stop_metric,
                "sessions": [
                    {
                        "begin": (BEGIN + n * step).timestamp(),
                        "end": (BEGIN + (n + 0.9) * step).timestamp(),
                        "nodes": 1 + n,
                        "concurrent": 4,
                        "gpus": 4,
                    }
                    for n in range(sessions)
                ],
                "seconds": (finish - BEGIN).total_seconds(),
                "gpu_hours": 4 * (finish - BEGIN).total_seconds() / 3600,
                "money": 3.21,
                "price_per_node_hour": 12.24,
            }
        )
    )
    if not rows:
        return
    table = _leaderboard(rows, objectives, rng, repeats)
    table.to_parquet(folder / "leaderboard.parquet", index=False)
    for row in table[table["state"] == COMPLETE].head(2).to_dict("records"):
        _write_student(folder / "best" / f"{row['rank']}-{row['id']}", row)


def _leaderboard(
    rows: Sequence[optuna.trial.FrozenTrial], objectives: Objectives, rng: random.Random, repeats: int
) -> pd.DataFrame:
    sign = 1 if objectives.modes[0] == MIN else -1
    order = {COMPLETE: 0, PRUNED: 1, RUNNING: 2, FAIL: 3}
    finished = [r for r in rows if r.values]
    leading = {finished[n].number for n in front([objectives.costs(r.values) for r in finished])}

    def place(row: optuna.trial.FrozenTrial) -> tuple[int, bool, float]:
        value = row.user_attrs["metrics"].get(objectives.first)
        behind = objectives.several and row.number not in leading
        return order[row.state.name], behind, math.inf if value is None else sign * value

    listed: list[dict[str, Any]] = []
    for rank, row in enumerate(sorted(rows, key=place), start=1):
        metrics = row.user_attrs["metrics"]
        found = {
            "rank": rank,
            "id": f"{row.number:03d}",
            "state": row.state.name,
            **row.params,
            **{n: v for n, v in metrics.items() if "/" in n},
            "test/miou": metrics["val/miou"] - 0.008 if row.values else None,
            "epochs": int(metrics.get("epoch", 0)),
            "seconds": row.user_attrs["seconds"],
            "resumed_from_epoch": None,
            "fault": row.user_attrs.get("fault"),
        }
        if objectives.several:
            found["front"] = row.number in leading
        if repeats and rank <= 3 and row.values:
            found |= {"seeds": repeats, "mean": row.values[0] - 0.004, "spread": 0.008 + 0.002 * rng.random()}
        listed.append(found)
    return pd.DataFrame(listed).astype({"resumed_from_epoch": "Int64", "fault": "string"})


def _write_student(folder: Path, row: Mapping[Any, Any]) -> None:
    from PIL import Image

    (folder / "pictures").mkdir(parents=True)
    metrics = {n: v for n, v in row.items() if "/" in n and v is not None}
    (folder / "result.json").write_text(json.dumps({"metrics": metrics, "config": {}}))
    (folder / "config.yaml").write_text(load_preset("demo").to_yaml(), encoding="utf-8")
    for name, colour in (("norm_maps", (80, 20, 110)), ("pca", (30, 140, 90))):
        Image.new("RGB", (320, 240), colour).save(folder / "pictures" / f"{name}.png")


def journal_of(folder: Path) -> Path:
    return folder / JOURNAL
