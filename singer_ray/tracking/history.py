"""history.csv: what each epoch of a run reported, one row an epoch."""

from __future__ import annotations

import contextlib
import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path

from singer_ray.layout import HISTORY
from singer_ray.storage import write_whole

EPOCH, SECONDS, RATE = "epoch", "seconds", "lr"
"""Columns besides the metrics: the epoch (1-based), seconds of training until its end, and its last learning rate."""
LARGEST = 256 * 2**20
"""Bytes of a file beyond which it is none of ours."""

Row = dict[str, float]


class History:
    """The rows of a run, kept in FOLDER/history.csv. A metric that an epoch does not have is an empty cell.

    The file is written anew with each row, whole or not at all, so that a crash leaves no half row and an epoch that
    has columns of its own (the last one) needs no second file.
    """

    def __init__(self, folder: Path, rows: Mapping[int, Row] | None = None) -> None:
        self.path = folder / HISTORY
        self.rows: dict[int, Row] = dict(rows or {})

    @classmethod
    def until(cls, folder: Path, epoch: int) -> History:
        """What a run that goes on after `epoch` has reported so far: later rows will come again."""
        return cls(folder, {n: row for n, row in read_history(folder).items() if n <= epoch})

    def add(self, row: Mapping[str, float]) -> None:
        """Takes the row of an epoch in; it replaces an earlier one, and those of later epochs."""
        epoch = int(row[EPOCH])
        self.rows = {n: kept for n, kept in self.rows.items() if n < epoch} | {epoch: dict(row)}

    def write(self) -> None:
        """Raises OSError."""
        columns = dict.fromkeys([EPOCH, SECONDS, RATE])
        for row in self.rows.values():
            columns |= dict.fromkeys(row)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for _, row in sorted(self.rows.items()):
            writer.writerow([_cell(name, row.get(name)) for name in columns])
        write_whole(self.path, text.getvalue())


def read_history(folder: Path) -> dict[int, Row]:
    """Epoch -> row, of FOLDER/history.csv; empty where there is none. What cannot be read as a row is left out."""
    path, rows = folder / HISTORY, dict[int, Row]()
    if not path.is_file() or path.stat().st_size > LARGEST:
        return rows
    with contextlib.suppress(csv.Error), path.open(newline="", encoding="utf-8", errors="replace") as file:
        for cells in csv.DictReader(file):
            row = {name: value for name, cell in cells.items() if name and (value := _number(cell)) is not None}
            if EPOCH in row and row[EPOCH] >= 1:
                rows[int(row[EPOCH])] = row
    return dict(sorted(rows.items()))


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name == EPOCH:
        return str(int(value))
    return f"{value:.3f}" if name == SECONDS else repr(float(value))


def _number(cell: object) -> float | None:
    try:
        value = float(cell) if isinstance(cell, str) and len(cell) < 100 else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
