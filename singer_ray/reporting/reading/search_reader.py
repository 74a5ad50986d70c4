"""Reads what a search's folder says about it: the study, and those of the files beside it that exist."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from singer_ray.errors import UserError, printable
from singer_ray.layout import BEST, CONFIG, JOURNAL, LEADERBOARD, PICTURES, RECORD, RESULT, SPACE
from singer_ray.reporting.reading.record import SearchRecord, SessionRecord, Student, TrialRecord, last_moment
from singer_ray.search.study import opening
from singer_ray.search.study import schema as studies
from singer_ray.search.study.objectives import Objectives, front
from singer_ray.search.study.schema import COMPLETE, FAIL, PRUNED, QUEUED, REPEATS, RUNNING
from singer_ray.storage import Folder, read_json_mapping, without_credentials
from singer_ray.storage.reading import stays_inside


def read_search(folder: Path) -> SearchRecord:
    """The search in FOLDER. Raises UserError when there is none, or its study cannot be read."""
    description = _description(folder)
    study = _study(folder, description)
    opening.require_own(study, folder)
    objectives = studies.objectives_of(study)
    rows = studies.own_rows(study)
    notes: list[str] = []
    students = _students(folder)
    table = _leaderboard(folder, notes)
    sessions = [_session(each) for each in description.get("sessions") or []]
    recorded = _until_now([_trial(row, objectives) for row in rows], sessions)
    trials = _with_leaderboard(_ranked(recorded, objectives), table)
    epochs = study.user_attrs.get(studies.EPOCHS)
    return SearchRecord(
        folder=folder,
        name=str(description.get("name") or study.study_name),
        objectives=objectives,
        epochs=int(epochs) if epochs else None,
        trials=trials,
        imported=_imported(study),
        distributions=_distributions(rows, study.user_attrs.get(studies.SPACE)),
        sessions=sessions,
        seconds=_number(description.get("seconds")) or _span(trials),
        gpu_hours=_number(description.get("gpu_hours")),
        money=_number(description.get("money")),
        price=_number(description.get("price_per_node_hour")),
        students=students,
        config=_text(folder, CONFIG),
        space=_text(folder, SPACE),
        notes=notes,
        remarks=_remarks(description.get("remarks")),
    )


def _description(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder. Give the folder of a search: the --out of singer_ray.tune.")
    path = folder / RECORD
    if not path.is_file():
        if not (folder / JOURNAL).is_file():
            raise UserError(
                f"{folder} is not a search: it has neither {JOURNAL} nor {RECORD}. Give the --out of "
                "singer_ray.tune, or of singer_ray.train."
            )
        return {}
    try:
        return read_json_mapping(
            _content(folder, RECORD) or b"", str(path), "Restore it, or remove it to go by the study."
        )
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {_line(error)}. Restore it, or remove it to go by the study."
        ) from error


def _study(folder: Path, description: Mapping[str, Any]) -> optuna.Study:
    address = description.get("study")
    if address is not None and not isinstance(address, str):
        raise UserError(f"{folder / RECORD} has no address for study. Restore it, or remove it to go by the study.")
    journal = folder / JOURNAL
    if address is None and not journal.is_file():
        raise UserError(f"{folder} has no {JOURNAL}: nothing is known of its trials. Give the folder of a search.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            storage = opening.storage_of(address, folder, "read")
            name = _name(description.get("name")) or _only_study(storage, folder.resolve().name)
            return opening.load_study(storage, name)
        except UserError as error:
            if address is not None:
                raise UserError(without_credentials(str(error))) from error
            why = (
                _line(error.__cause__) if error.__cause__ and not isinstance(error.__cause__, KeyError) else str(error)
            )
            raise UserError(
                f"{journal} cannot be read: {why}. Restore it from a copy, or give another folder."
            ) from error


def _name(name: Any) -> str | None:
    return name if isinstance(name, str) else None


def _only_study(storage: optuna.storages.BaseStorage, name: str) -> str:
    """`name`, or the only study there is: a folder may have been moved."""
    names = [s.study_name for s in optuna.get_all_study_summaries(storage) if not s.study_name.endswith(REPEATS)]
    return names[0] if len(names) == 1 else name


def _trial(row: FrozenTrial, objectives: Objectives) -> TrialRecord:
    attributes = row.user_attrs
    metrics = {n: float(v) for n, v in studies.last_result(row).items() if _number(v) is not None}
    values = row.values if row.state.name == COMPLETE else objectives.values(metrics)
    if values is None and (by_epoch := studies.values_by_epoch(row, objectives)):  # still running
        values = objectives.values(by_epoch[max(by_epoch)])
    known = values is not None and row.state.name != FAIL and all(map(math.isfinite, values))
    begin, end = studies.started(row), row.datetime_complete
    seconds = _number(attributes.get(studies.SECONDS))
    if seconds is None:
        seconds = max(0.0, (end - begin).total_seconds()) if end and begin else 0.0
    resumed, error = attributes.get(studies.RESUMED), attributes.get(studies.FAULT)
    return TrialRecord(
        row.number,
        studies.state_of(row),
        dict(row.params),
        tuple(values) if known and values else None,
        metrics,
        {n: v for n, v in sorted(row.intermediate_values.items()) if math.isfinite(v)},
        studies.epochs_of(row),
        seconds,
        begin,
        end,
        int(resumed) if resumed else None,
        without_credentials(str(error)) if error else None,
    )


def _until_now(trials: Sequence[TrialRecord], sessions: Sequence[SessionRecord]) -> list[TrialRecord]:
    """Running trials get the seconds that they have taken in this session, as far as is known."""
    last = last_moment(trials, sessions)
    first = datetime.fromtimestamp(sessions[-1].begin) if sessions else datetime.min
    return [
        replace(t, seconds=max(0.0, (last - max(t.begin, first)).total_seconds()))
        if t.state == RUNNING and t.begin and last
        else t
        for t in trials
    ]


def _ranked(trials: Sequence[TrialRecord], objectives: Objectives) -> list[TrialRecord]:
    """Finished, stopped, running, queued, then failed trials, each by the first objective; the Pareto front leads."""
    finished = [t for t in trials if t.state == COMPLETE and t.values]
    leading = {finished[n].number for n in front([objectives.costs(t.values) for t in finished if t.values])}
    order = {COMPLETE: 0, PRUNED: 1, RUNNING: 2, QUEUED: 3}

    def place(trial: TrialRecord) -> tuple[int, bool, float, int]:
        cost = objectives.costs(trial.values)[0] if trial.values else math.inf
        behind = objectives.several and trial.number not in leading
        return order.get(trial.state, 4), behind, cost, trial.number

    marked = sorted(trials, key=place)
    return [replace(t, rank=n, front=objectives.several and t.number in leading) for n, t in enumerate(marked, start=1)]


def _with_leaderboard(trials: Sequence[TrialRecord], table: pd.DataFrame | None) -> list[TrialRecord]:
    """Adds the leaderboard's ranks, repeats and test values, where it has the trials in their present states."""
    if table is None:
        return list(trials)
    rows = {str(row["id"]): row for row in table.to_dict("records")}
    now = {t.id: t.state for t in trials}
    current = now == {key: str(row.get("state")) for key, row in rows.items()}
    joined = []
    for trial in trials:
        row = rows.get(trial.id)
        if row is None or row.get("state") != trial.state:
            joined.append(trial)
            continue
        scores = {str(n): float(v) for n, v in row.items() if "/" in str(n) and _number(v) is not None}
        seeds = _number(row.get("seeds"))
        joined.append(
            replace(
                trial,
                metrics={**trial.metrics, **scores},
                rank=int(row["rank"]) if current else trial.rank,
                fault=trial.fault or (without_credentials(str(row["fault"])) if _given(row.get("fault")) else None),
                seeds=int(seeds) if seeds and seeds > 1 else None,
                mean=_number(row.get("mean")) if seeds and seeds > 1 else None,
                spread=_number(row.get("spread")) if seeds and seeds > 1 else None,
            )
        )
    return sorted(joined, key=lambda t: t.rank)


def _leaderboard(folder: Path, notes: list[str]) -> pd.DataFrame | None:
    path = folder / LEADERBOARD
    if not path.is_file():
        return None
    try:
        table = pd.read_parquet(io.BytesIO(_content(folder, LEADERBOARD) or b""))
        missing = [name for name in ("rank", "id", "state") if name not in table.columns]
        if missing:
            notes.append(f"{LEADERBOARD} has no column {missing[0]}: ranks and values are those of the study.")
        return None if missing else table.dropna(subset=["rank"])
    except Exception as error:
        notes.append(f"{LEADERBOARD} cannot be read ({_line(error)}): ranks and values are those of the study.")
        return None


def _students(folder: Path) -> list[Student]:
    students = []
    for each in (folder / BEST).glob("*-*"):
        rank, _, trial_id = each.name.partition("-")
        if not each.is_dir() or not rank.isdigit():
            continue
        try:
            result = read_json_mapping(_content(folder, f"{BEST}/{each.name}/{RESULT}") or b"", RESULT)
            metrics = {n: float(v) for n, v in result.get("metrics", {}).items() if _number(v) is not None}
        except (OSError, UserError, AttributeError):
            metrics = {}
        pictures = sorted(path for path in (each / PICTURES).glob("*.png") if path.is_file())
        for path in pictures:
            stays_inside(path, folder)
        students.append(Student(each, int(rank), trial_id, metrics, pictures))
    return sorted(students, key=lambda s: s.rank)


def _imported(study: optuna.Study) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in study.get_trials(deepcopy=False):
        address = row.user_attrs.get(studies.IMPORTED)
        if address is not None:
            counts[without_credentials(str(address))] = counts.get(without_credentials(str(address)), 0) + 1
    return counts


def _distributions(rows: Iterable[FrozenTrial], space: Any) -> dict[str, BaseDistribution]:
    """Parameter -> its distribution in the last row that has it; in the order of the search space if that is known."""
    distributions: dict[str, BaseDistribution] = {}
    for row in rows:
        distributions |= row.distributions
    known = list(space) if isinstance(space, Mapping) else []
    ordered = [name for name in known if name in distributions]
    return {name: distributions[name] for name in [*ordered, *(name for name in distributions if name not in ordered)]}


def _remarks(remarks: Any) -> list[str]:
    """The remarks in search.json; none in an older one."""
    return [printable(line, 1000) for line in remarks] if isinstance(remarks, list) else []


def _session(session: Any) -> SessionRecord:
    read = session if isinstance(session, Mapping) else {}
    nodes, concurrent = _number(read.get("nodes")), _number(read.get("concurrent"))
    return SessionRecord(
        _number(read.get("begin")) or 0.0,
        _number(read.get("end")),
        None if nodes is None else int(nodes),
        None if concurrent is None else int(concurrent),
        _number(read.get("gpus")),
    )


def _span(trials: Sequence[TrialRecord]) -> float | None:
    """Seconds from the first begin to the last end: all that is known without search.json."""
    begins = [t.begin for t in trials if t.begin]
    ends = [t.end for t in trials if t.end]
    return max(0.0, (max(ends) - min(begins)).total_seconds()) if begins and ends else None


def _text(folder: Path, name: str) -> str | None:
    content = _content(folder, name)
    try:
        return None if content is None else without_credentials(content.decode())
    except UnicodeDecodeError:
        return None


def _content(folder: Path, name: str) -> bytes | None:
    """The content of a file of the search. Raises UserError for a link out of its folder: reports may be published."""
    return Folder(str(folder), writable=False).read(name)


def _given(value: Any) -> bool:
    return value is not None and not pd.isna(value) and value != ""


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or pd.isna(value) or not math.isfinite(value):
        return None
    return float(value)


def _line(error: BaseException | None) -> str:
    return without_credentials(" ".join(str(error).split())[:200].rstrip("."))
