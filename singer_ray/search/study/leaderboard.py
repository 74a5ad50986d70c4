"""The table of a search: one row per trial, the best first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial

from singer_ray.console.terminal import Column, FittedTable
from singer_ray.layout import LEADERBOARD, LEADERBOARD_CSV
from singer_ray.search.study.objectives import Objectives, front
from singer_ray.search.study.schema import (
    COMPLETE,
    FAULT,
    PRUNED,
    QUEUED,
    REPEAT_OF,
    RESUMED,
    RUNNING,
    SECONDS,
    epochs_of,
    label_of,
    last_result,
    own_rows,
    state_of,
    values_by_epoch,
)
from singer_ray.storage import write_whole

FRONT, SEEDS, MEAN, SPREAD = "front", "seeds", "mean", "spread"
_HEAD, _TAIL = ("rank", "id", "state"), ("epochs", "seconds", RESUMED, FAULT)
_ORDER = {COMPLETE: 0, PRUNED: 1, RUNNING: 2, QUEUED: 3}
_SAID = {FRONT: "on the front", SEEDS: "seeds", MEAN: "mean of seeds", SPREAD: "± of seeds"}
_VAGUE = ("rank", "outlier", "ratio", "quantile", "kd", "info", "name", "source", "steps", "train", "state", "seconds")


def leaderboard(study: optuna.Study, objectives: Objectives, *, repeats: optuna.Study | None = None) -> pd.DataFrame:
    """The rows of a study, ranked.

    Finished trials come before stopped ones, then those that run, those in the queue, and failed ones. Within each the
    best value of the objective comes first; with several objectives those on the front (`front`), then the others,
    each by the first objective. Where trials were repeated, those come before the others, by their mean over the seeds
    that finished.
    Columns: rank, id, state, the parameters, the objectives, `val/...` and `test/...`, front, seeds, mean and spread
    (standard deviation over seeds), epochs, seconds, resumed_from_epoch, fault.
    """
    rows = own_rows(study)
    seeds = _by_repeated(repeats) if repeats else {}
    table = [_row(row, objectives, seeds.get(row.number)) for row in rows]
    if objectives.several:
        finished = [(n, objectives.costs(v)) for n, row in enumerate(table) if (v := _finished(row, objectives))]
        best = {finished[place][0] for place in front([costs for _, costs in finished])}
        for n, row in enumerate(table):
            row[FRONT] = n in best
    sign = objectives.costs([1.0] * len(objectives.names))[0]

    def place(row: Mapping[str, Any]) -> tuple[int, bool, bool, float, str]:
        value = row.get(MEAN, row.get(objectives.first))
        missing = value is None
        alone = bool(seeds) and MEAN not in row
        return _ORDER.get(row["state"], 4), alone or not row.get(FRONT, True), missing, sign * (value or 0.0), row["id"]

    table.sort(key=place)
    names = dict.fromkeys(name for row in table for name in row)
    extra = [name for name in (FRONT, SEEDS, MEAN, SPREAD) if name in names]
    values = sorted((name for name in names if name.startswith(("val/", "test/"))), reverse=True)
    values = [*objectives.names, *(name for name in values if name not in objectives.names)]
    parameters = sorted({name for row in rows for name in row.params})
    parameters = [name for name in names if name in parameters]
    numbered = [{"rank": n, **row} for n, row in enumerate(table, 1)]
    frame = pd.DataFrame(numbered, columns=[*_HEAD, *parameters, *values, *extra, *_TAIL])
    # A conditional whole number is missing in some rows: it must not become a fraction for that.
    whole = [name for name in parameters if all(type(row.get(name, 0)) is int for row in table)]
    kinds = {**dict.fromkeys(whole, "Int64"), RESUMED: "Int64", FAULT: "string"}
    return frame.astype(kinds | ({SEEDS: "Int64"} if SEEDS in extra else {}))


def winners(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """The best row of each value of the parameter `by`, the best first."""
    return table.drop_duplicates(by, keep="first")


def write_leaderboard(table: pd.DataFrame, out: Path) -> None:
    """leaderboard.parquet and leaderboard.csv."""
    write_whole(out / LEADERBOARD, table.to_parquet(index=False))
    write_whole(out / LEADERBOARD_CSV, table.to_csv(index=False))


def parameters_in(table: pd.DataFrame, objectives: Objectives | None = None) -> list[str]:
    """The columns that are parameters of the search."""
    fixed = {*_HEAD, *_TAIL, FRONT, SEEDS, MEAN, SPREAD, *(objectives.names if objectives else ())}
    return [c for c in table.columns if c not in fixed and not c.startswith(("val/", "test/"))]


def as_rich_table(table: pd.DataFrame, objectives: Objectives, *, title: str, most: int = 20) -> FittedTable:
    """The leading rows for a terminal; columns that none of them fills, or that have no room, are left out."""
    leading = table.head(most).dropna(axis="columns", how="all")
    tests = [name.replace("val/", "test/", 1) for name in objectives.names]
    scores = [name for name in dict.fromkeys((*objectives.names, *tests)) if name in leading.columns]
    scores += [name for name in (FRONT, SEEDS, MEAN, SPREAD) if name in leading.columns]
    parameters = parameters_in(leading, objectives)
    rows = leading.to_dict("records")
    said = {"rank": "place", "id": "trial", "state": "state", **{name: _SAID.get(name, name) for name in scores}}
    said |= {**heads(parameters), "epochs": "epochs", "seconds": "seconds"}
    needed = ("id", "state", objectives.first)
    columns = [
        Column(head, [_shown(name, row) for row in rows], right=name not in ("id", "state"), needed=name in needed)
        for name, head in said.items()
        if name in leading.columns
    ]
    return FittedTable(columns, title=title)


def heads(parameters: Sequence[str]) -> dict[str, str]:
    """Parameters -> the heads of their columns: the last part of a name, with what stands before it where one needs it.

    `train.lr` is lr, but `method.rank` is no place in a table, and `ratio` alone says nothing.
    """
    short = {name: name.rpartition(".")[2] for name in parameters}
    short |= {name: ".".join(name.split(".")[-2:]) for name, end in short.items() if end in _VAGUE}
    known = list(short.values())
    return {name: end if known.count(end) == 1 else name for name, end in short.items()}


def _shown(name: str, row: Mapping[Any, Any]) -> str:
    return cell(round(row[name]) if name == "seconds" else row[name])


def cell(value: Any) -> str:
    """A value as short text; nothing for what is missing."""
    if value is None or pd.isna(value):
        return ""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) >= 1e4 else f"{value:.4g}"
    return str(value)


def _row(row: FrozenTrial, objectives: Objectives, seeds: Sequence[float] | None) -> dict[str, Any]:
    result = last_result(row)
    by_epoch = values_by_epoch(row, objectives)
    reached = by_epoch[max(by_epoch)] if by_epoch else {}
    scores = {k: v for k, v in result.items() if k.startswith(("val/", "test/")) and "/after_norm/" not in k}
    scores |= {name: v for name in objectives.names if (v := result.get(name, reached.get(name))) is not None}
    columns: dict[str, Any] = {
        "id": label_of(row.number),
        "state": state_of(row),
        **row.params,
        **scores,
        "epochs": epochs_of(row),
        "seconds": float(row.user_attrs.get(SECONDS, 0.0)),
        RESUMED: row.user_attrs.get(RESUMED),
        FAULT: row.user_attrs.get(FAULT),
    }
    if seeds is not None and objectives.first in scores:
        values = [scores[objectives.first], *seeds]
        columns |= {SEEDS: len(values), MEAN: mean(values), SPREAD: stdev(values) if seeds else math.nan}
    return columns


def _finished(row: Mapping[str, Any], objectives: Objectives) -> list[float] | None:
    return objectives.values(row) if row["state"] == COMPLETE else None


def _by_repeated(repeats: optuna.Study) -> dict[int, list[float]]:
    """Number of a trial that repeats were asked of -> the first objective of those that have finished."""
    by_number: dict[int, list[float]] = {}
    for row in repeats.get_trials(deepcopy=False):
        values = by_number.setdefault(row.user_attrs[REPEAT_OF], [])
        values += row.values[:1] if row.state.name == COMPLETE else []
    return by_number
