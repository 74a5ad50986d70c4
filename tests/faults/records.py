"""What a search left, read the way a user's tools would, and what must be true of it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from singer_ray.layout import JOURNAL
from singer_ray.search.study.opening import load_study, storage_of
from singer_ray.search.study.schema import COMPLETE, FAIL, PRUNED, REPEAT_OF, REPEATS, RESUMED, RUNNING, SEED
from singer_ray.storage import Folder
from singer_ray.training import checkpoint

FINAL = (COMPLETE, PRUNED, FAIL)
OBJECTIVE = "val/miou"


@dataclass(frozen=True)
class Row:
    """A row of the study, as far as it must survive."""

    label: str
    number: int
    state: str
    params: dict[str, Any]
    values: tuple[float, ...] | None
    epochs: dict[int, float]
    """Epoch -> value."""
    resumed: int | None

    @property
    def settled(self) -> tuple[Any, ...]:
        """What no crash may change once the row is final, and what an uninterrupted search has too."""
        return self.label, self.state, self.params, self.values, self.epochs


def read_rows(state: Folder) -> list[Row]:
    """All rows of the search and of its repeats, from a copy: the search may run."""
    record = json.loads(state.read("search.json") or b"{}")
    journal = state.read(JOURNAL)
    if not record or journal is None:
        return []
    with tempfile.TemporaryDirectory() as place:
        Path(place, JOURNAL).write_bytes(journal[: journal.rfind(b"\n") + 1])
        storage = storage_of(None, Path(place))
        names = [study.study_name for study in storage.get_all_studies()]
        wanted = [name for name in (record["name"], f"{record['name']}{REPEATS}") if name in names]
        return [_row(row) for name in wanted for row in load_study(storage, name).get_trials()]


def _row(row: Any) -> Row:
    repeated = row.user_attrs.get(REPEAT_OF)
    label = f"{row.number:03d}" if repeated is None else f"{repeated:03d}-seed{row.user_attrs[SEED]}"
    values = tuple(row.values) if row.values is not None else None
    return Row(
        label, row.number, row.state.name, row.params, values, row.intermediate_values, row.user_attrs.get(RESUMED)
    )


def violations(
    out: Path,
    trials: Folder,
    *,
    wanted: int,
    epochs: int,
    reference: Sequence[Row],
    before: Sequence[Row],
    announced: Sequence[str],
    revived: bool,
) -> list[str]:
    """What is wrong with a search that was killed, resumed and has ended.

    Args:
        trials: where its checkpoints are.
        reference: the rows of the same search, never interrupted.
        before: the rows when it was killed.
        announced: labels of the trials whose end had been printed by then.
        revived: whether a new driver went on; False when the first one survived.
    """
    rows = read_rows(Folder(str(out)))
    found = [f"{row.label} is {row.state}" for row in rows if row.state not in FINAL]
    main = [row for row in rows if "-" not in row.label]
    if [row.number for row in main] != list(range(wanted)):
        found.append(f"numbers {[row.number for row in main]}, not 0 to {wanted - 1}")
    there = {row.label: row for row in rows}
    if len(there) != len(rows):
        found.append("a trial has two rows")
    found += _kept(there, before, announced, revived=revived)
    for row in rows:
        if row.state == COMPLETE and sorted(row.epochs) != list(range(1, epochs + 1)):
            found.append(f"{row.label} is COMPLETE and lacks epochs: it has {sorted(row.epochs)}")
        if row.state != FAIL:
            found += _checkpoint(row, trials)
    expected = {row.label: row for row in reference}
    for label in sorted({*there, *expected}):
        one, other = there.get(label), expected.get(label)
        if one is None or other is None:
            found.append(f"{label} is in {'the reference' if one is None else 'this search'} only")
        elif one.settled != other.settled:
            found.append(f"{label} differs from the reference: {one.settled} != {other.settled}")
    return [*found, *_table(out, main)]


def _kept(there: dict[str, Row], before: Sequence[Row], announced: Sequence[str], *, revived: bool) -> list[str]:
    found = []
    for old in before:
        new = there.get(old.label)
        if new is None:
            found.append(f"{old.label} was lost")
        elif old.state in FINAL and new.settled != old.settled:
            found.append(f"{old.label} was final and has changed: {old.settled} -> {new.settled}")
        elif old.state == RUNNING and not old.params.items() <= new.params.items():
            found.append(f"{old.label} has other parameters: {old.params} -> {new.params}")
        elif old.state == RUNNING and old.epochs and revived and (new.resumed or 0) < max(old.epochs) - 1:
            found.append(f"{old.label} had {max(old.epochs)} epochs and resumed from {new.resumed}")
    final = {old.label for old in before if old.state in FINAL}
    return found + [f"{label} was announced as ended, and its row was not final" for label in {*announced} - final]


def _checkpoint(row: Row, trials: Folder) -> list[str]:
    content = trials.read(f"{row.label}/checkpoint.pt")
    if content is None:
        return [f"{row.label} has no checkpoint"]
    try:
        epoch = checkpoint.from_bytes(content)["metrics"]["epoch"]
    except Exception as error:
        return [f"the checkpoint of {row.label} cannot be read: {error}"]
    return [] if epoch == max(row.epochs) else [f"the checkpoint of {row.label} is of epoch {epoch}, not {row.epochs}"]


def _table(out: Path, rows: Sequence[Row]) -> list[str]:
    """Where leaderboard, study and packages disagree."""
    table = pd.read_parquet(out / "leaderboard.parquet").set_index("id")
    text = pd.read_csv(out / "leaderboard.csv", dtype={"id": str}).set_index("id")
    found = [] if list(table.index) == list(text.index) else ["leaderboard.csv and .parquet differ"]
    if sorted(table.index) != [row.label for row in rows]:
        found.append(f"the leaderboard has {sorted(table.index)}")
        return found
    for row in rows:
        line = table.loc[row.label]
        resumed: int | None = None if pd.isna(line[RESUMED]) else int(line[RESUMED])
        if (line["state"], resumed) != (row.state, row.resumed):
            found.append(f"{row.label}: the leaderboard says {line['state']}, {resumed}; the study {row}")
        if row.state == COMPLETE and row.values != (line[OBJECTIVE],):
            found.append(f"{row.label}: {line[OBJECTIVE]} in the leaderboard, {row.values} in the study")
    best = sorted((out / "best").iterdir())
    if not best:
        found.append("no student was packaged")
    for folder in best:
        rank, label = folder.name.split("-", 1)
        line, result = table.loc[label], json.loads((folder / "result.json").read_text())
        if line["rank"] != int(rank) or result["metrics"][OBJECTIVE] != line[OBJECTIVE]:
            found.append(f"{folder.name} and the leaderboard disagree")
    return found
