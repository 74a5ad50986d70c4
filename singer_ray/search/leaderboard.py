"""The table of a search: one row a trial, the best first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from singer_ray.search.optuna_search import COMPLETE, FAIL, FAULT, PRUNED, trial_state

_MINIMIZED = ("depth_rmse", "max_median_norm", "loss")


def direction(metric: str, mode: str) -> str:
    """ "max" or "min": as given, else by what the metric is."""
    if mode != "auto":
        return mode
    return "min" if any(part in metric for part in _MINIMIZED) else "max"


def leaderboard(
    trials: Sequence[tuple[Mapping[str, Any], Mapping[str, Any], bool]], *, metric: str, mode: str, epochs: int
) -> pd.DataFrame:
    """Rows from (trial configuration, last result, whether it ended in an error), ranked.

    Finished trials come before stopped ones and those before failed ones; within each, the best `metric` first.
    Columns: rank, id, state, the parameters, `val/...` and `test/...`, epochs, seconds, resumed_from_epoch, fault.
    """
    rows: list[dict[str, Any]] = []
    for config, result, error in trials:
        state = trial_state(dict(result), metric=metric, epochs=epochs, error=error)
        scores = {k: v for k, v in result.items() if k.startswith(("val/", "test/")) and "/after_norm/" not in k}
        rows.append({
            "id": f"{config['number']:03d}",
            "state": state,
            **config["parameters"],
            **scores,
            "epochs": int(result.get("epoch", 0)),
            "seconds": round(float(result.get("time_total_s", 0.0)), 2),
            "resumed_from_epoch": result.get("resumed_from_epoch"),
            "fault": _fault(result, state, error=error),
        })  # fmt: skip
    sign = -1.0 if mode == "max" else 1.0
    order = {COMPLETE: 0, PRUNED: 1}

    def place(row: dict[str, Any]) -> tuple[int, float, str]:
        value = row.get(metric)
        key = sign * value if value is not None and math.isfinite(value) else math.inf
        return order.get(row["state"], 2), key, row["id"]

    rows.sort(key=place)
    names = dict.fromkeys(name for row in rows for name in row)
    head, tail = ["rank", "id", "state"], ["epochs", "seconds", "resumed_from_epoch", "fault"]
    values = sorted((name for name in names if name.startswith(("val/", "test/"))), reverse=True)
    parameters = [name for name in names if name not in {*head, *tail, *values}]
    numbered = [{"rank": n, **row} for n, row in enumerate(rows, 1)]
    table = pd.DataFrame(numbered, columns=[*head, *parameters, *values, *tail])
    # A conditional whole number is missing in some rows: it must not become a fraction for that.
    whole = [name for name in parameters if all(type(row.get(name, 0)) is int for row in rows)]
    return table.astype({**dict.fromkeys(whole, "Int64"), "resumed_from_epoch": "Int64", "fault": "string"})


def winners(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """The best row of each value of the parameter `by`, the best first."""
    return table.drop_duplicates(by, keep="first")


def _fault(result: Mapping[str, Any], state: str, *, error: bool) -> str | None:
    if state != FAIL:
        return None
    missing = "its metric was never finite" if result.get("epoch") else "stopped before its first epoch ended"
    return result.get(FAULT) or ("the process or machine died" if error else missing)


def write_leaderboard(table: pd.DataFrame, out: Path) -> None:
    """leaderboard.parquet and leaderboard.csv."""
    table.to_parquet(out / "leaderboard.parquet", index=False)
    table.to_csv(out / "leaderboard.csv", index=False)


def as_rich_table(table: pd.DataFrame, metric: str, *, title: str, most: int = 20) -> Table:
    """The leading rows for a terminal; parameters that none of them has are left out."""
    test = metric.replace("val/", "test/", 1)
    scores = [name for name in (metric, test) if name in table.columns]
    fixed = {"rank", "id", "state", "epochs", "seconds", "resumed_from_epoch", "fault"}
    leading = table.head(most).dropna(axis="columns", how="all")
    parameters = [c for c in leading.columns if c not in fixed and not c.startswith(("val/", "test/"))]
    shown = Table(title=title, title_justify="left")
    for column in ("#", "trial", "state", *scores, *(p.rpartition(".")[2] for p in parameters), "epochs", "s"):
        shown.add_column(column, justify="left" if column in ("trial", "state") else "right", overflow="fold")
    for row in table.head(most).to_dict("records"):
        cells = [row["rank"], row["id"], row["state"], *(row[s] for s in scores), *(row[p] for p in parameters)]
        shown.add_row(*map(cell, [*cells, row["epochs"], round(row["seconds"])]))
    return shown


def cell(value: Any) -> str:
    """A value as short text; nothing for what is missing."""
    if pd.isna(value):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
