"""Which students of a search are published: the best by rank or by another metric, a Pareto front, or named trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from singer_ray.errors import UserError, nearest
from singer_ray.storage import without_credentials

COMPLETE, FAIL = "COMPLETE", "FAIL"


@dataclass(frozen=True)
class Selection:
    """Which students: the best by rank, by another metric, the Pareto front, or trials by their ids."""

    top: int = 3
    metric: str | None = None
    mode: str = "max"
    """Of `metric`: "max" or "min"."""
    front: bool = False
    trials: Sequence[str] = ()


@dataclass(frozen=True)
class SelectedStudent:
    """A student of an experiment."""

    rank: int
    trial: str
    row: Mapping[str, Any] = field(default_factory=dict)
    """Its row of the leaderboard."""

    @property
    def name(self) -> str:
        return f"{self.rank}-{self.trial}"


def chosen(table: pd.DataFrame, selection: Selection, address: str) -> list[SelectedStudent]:
    """The selected students of a leaderboard, the best first; `address` names the search in messages.

    Raises UserError when there are none, or an unknown one is named.
    """
    if selection.trials:
        return [_row(table, str(trial)) for trial in selection.trials]
    usable = table[table["state"] != FAIL]
    finished = usable[usable["state"] == COMPLETE]
    rows = finished if len(finished) else usable
    if rows.empty:
        raise UserError(
            f"{address} has no finished trial: there is no student to export. Its leaderboard.csv says why; "
            "go on with the search, or start another."
        )
    if selection.front:
        if "front" not in table.columns:
            raise UserError(f"{address} has one objective, so there is no Pareto front. Use --top N.")
        rows = rows[rows["front"].fillna(False).astype(bool)]
    if selection.metric:
        rows = _by_metric(rows, selection.metric, selection.mode)
    if rows.empty:
        what = f"a value of {selection.metric}" if selection.metric else "a place on the Pareto front"
        raise UserError(f"No finished trial of {address} has {what}. Use --top N, or name a --trial.")
    if not selection.front:
        rows = rows.head(selection.top)
    return [_choice(row) for row in rows.to_dict("records")]


def _row(table: pd.DataFrame, trial: str) -> SelectedStudent:
    wanted = trial.zfill(3)
    rows = table[table["id"] == wanted]
    if rows.empty:
        ids = list(table["id"])
        raise UserError(
            f"--trial {trial!r}: there is no such trial.{nearest(wanted, ids)} Allowed: {', '.join(ids[:20])}"
            f"{', ...' if len(ids) > 20 else ''}."
        )
    row = rows.iloc[0]
    if row["state"] == FAIL:
        why = without_credentials(str(row["fault"]))
        raise UserError(f"--trial {trial!r} failed ({why}): it has no student. Name another.")
    return _choice(row.to_dict())


def _by_metric(rows: pd.DataFrame, metric: str, mode: str) -> pd.DataFrame:
    numbers = [n for n in rows.columns if pd.api.types.is_numeric_dtype(rows[n]) and n != "rank"]
    if metric not in numbers:
        scores = [name for name in numbers if "/" in name]
        raise UserError(
            f"--metric {metric!r} is not a column of the leaderboard.{nearest(metric, numbers)} "
            f"Allowed: {', '.join(scores)}."
        )
    return rows[rows[metric].notna()].sort_values(metric, ascending=mode == "min", kind="stable")


def _choice(row: Mapping[Any, Any]) -> SelectedStudent:
    return SelectedStudent(int(row["rank"]), str(row["id"]), {str(name): value for name, value in row.items()})
