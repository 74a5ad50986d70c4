"""What is read of a search's folder."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from singer_ray.reporting.page.search_page import build_report
from singer_ray.reporting.page.trial_figures import timeline
from singer_ray.reporting.reading.search_reader import read_search
from singer_ray.search.study.leaderboard import leaderboard
from singer_ray.search.study.opening import create_study, storage_of
from singer_ray.search.study.schema import IN_QUEUE, SECONDS, STARTED
from tests.reporting.searches import BEGIN, SINGER, fake_search, journal_of
from tests.search.studies import MIOU


@pytest.mark.parametrize("objectives", [("val/miou",), ("val/depth_rmse",), ("val/miou", "student/parameters")])
def test_without_a_leaderboard_the_ranks_are_the_same(tmp_path: Path, objectives: tuple[str, ...]) -> None:
    folder = fake_search(tmp_path / "search", objectives=objectives)
    with_table = read_search(folder)
    (folder / "leaderboard.parquet").unlink()
    alone = read_search(folder)
    assert [(t.id, t.rank, t.front) for t in alone.finished] == [(t.id, t.rank, t.front) for t in with_table.finished]
    assert [t.state for t in alone.trials] == sorted(
        (t.state for t in alone.trials), key=("COMPLETE", "PRUNED", "RUNNING", "FAIL").index
    )


def test_a_leaderboard_of_an_earlier_session_does_not_rank_later_trials(tmp_path: Path) -> None:
    folder = fake_search(tmp_path / "search", repeats=3)
    table = pd.read_parquet(folder / "leaderboard.parquet")
    leader = read_search(folder).best
    assert leader is not None
    table[table["id"] != leader.id].to_parquet(folder / "leaderboard.parquet")
    search = read_search(folder)
    assert search.best is not None
    assert search.best.id == leader.id
    assert [t.rank for t in search.trials] == list(range(1, 41))
    assert search.repeated


def test_a_broken_leaderboard_is_said_and_done_without(tmp_path: Path) -> None:
    folder = fake_search(tmp_path / "search", trials=5)
    (folder / "leaderboard.parquet").write_bytes(b"PAR1 no table")
    search = read_search(folder)
    assert len(search.trials) == 5
    assert "leaderboard.parquet cannot be read" in search.notes[0]


def test_the_front_is_what_no_other_trial_beats(tmp_path: Path) -> None:
    search = read_search(fake_search(tmp_path / "search", objectives=("val/miou", "student/parameters")))
    assert {trial.front for trial in search.finished} == {True, False}
    for trial in search.finished:
        assert trial.values is not None
        beaten = [
            t
            for t in search.finished
            if t.values
            and t is not trial
            and t.values[0] >= trial.values[0]
            and t.values[1] <= trial.values[1]
            and t.values != trial.values
        ]
        assert trial.front == (not beaten)


def test_imported_rows_are_counted_apart(finished: Path) -> None:
    search = read_search(finished)
    assert len(search.trials) == 40
    assert sum(search.imported.values()) <= 5
    assert list(search.imported) == ["s3://bucket/earlier"]


def test_wall_time_without_search_json_is_that_of_the_trials(tmp_path: Path) -> None:
    folder = fake_search(tmp_path / "search", trials=8)
    said = json.loads((folder / "search.json").read_text())["seconds"]
    (folder / "search.json").unlink()
    assert read_search(folder).seconds == pytest.approx(said, rel=0.05)
    assert read_search(folder).gpu_hours is None


def test_a_line_that_is_still_being_written_does_no_harm(tmp_path: Path) -> None:
    folder = fake_search(tmp_path / "search", trials=4, space=SINGER, files=False)
    with journal_of(folder).open("a") as journal:
        journal.write('{"op_code":4,"worker_id')
    assert len(read_search(folder).trials) == 4


def test_the_test_value_comes_from_the_exported_student_when_nothing_else_has_it(tmp_path: Path) -> None:
    folder = fake_search(tmp_path / "search")
    (folder / "leaderboard.parquet").unlink()
    search = read_search(folder)
    best = search.best
    assert best is not None
    assert best.values is not None
    assert search.test_of(best, "val/miou") == pytest.approx(best.values[0] - 0.008)


def test_a_trial_begins_when_a_host_takes_it_and_a_queued_one_has_not(tmp_path: Path) -> None:
    """Five trials, two places: what was asked for at once ran one after the other."""
    folder = tmp_path / "search"
    folder.mkdir()
    study = create_study(storage_of(None, folder), "search", MIOU, epochs=1)
    distributions: dict[str, BaseDistribution] = {"train.lr": FloatDistribution(1e-3, 1e-2)}

    def add(state: str, taken: float | None, seconds: float | None = None) -> None:
        more: dict[str, Any] = {IN_QUEUE: taken is None}
        more |= {} if taken is None else {STARTED: (BEGIN + timedelta(seconds=taken)).isoformat()}
        more |= {} if seconds is None else {SECONDS: seconds}
        row = create_trial(
            state=TrialState[state],
            value=0.5 if seconds else None,
            params={"train.lr": 5e-3},
            distributions=distributions,
            user_attrs=more,
        )
        row.datetime_start = BEGIN
        row.datetime_complete = None if seconds is None or taken is None else BEGIN + timedelta(seconds=taken + seconds)
        study.add_trial(row)

    for taken in (0.0, 1.0, 60.0):
        add("COMPLETE", taken, 58.0)
    add("RUNNING", 61.0)
    add("RUNNING", None)
    session = {"begin": BEGIN.timestamp(), "end": BEGIN.timestamp() + 130, "concurrent": 2}
    (folder / "search.json").write_text(json.dumps({"name": "search", "study": None, "sessions": [session]}))
    search = read_search(folder)
    assert [(t.id, t.state, t.seconds) for t in search.trials] == [
        ("000", "COMPLETE", 58.0),
        ("001", "COMPLETE", 58.0),
        ("002", "COMPLETE", 58.0),
        ("003", "RUNNING", 69.0),
        ("004", "QUEUED", 0.0),
    ]
    assert sum(t.seconds for t in search.trials) <= 2 * 130, "no more than two places can give"
    drawn = timeline(search)
    assert drawn is not None
    assert {row for trace in drawn.data for row in trace.y} == {1, 2}
    assert [told[0] for trace in drawn.data for told in trace.customdata] == ["000", "001", "002", "003"]
    page = build_report(folder).read_text(encoding="utf-8")
    assert ">queued<" in page
    assert "2 trials had not ended" in page
    assert leaderboard(study, MIOU)["state"].tolist() == ["COMPLETE"] * 3 + ["RUNNING", "QUEUED"]


def test_trials_of_earlier_versions_began_when_they_were_asked_for(tmp_path: Path) -> None:
    search = read_search(fake_search(tmp_path / "search", trials=4, states=["RUNNING"]))
    assert all(t.begin is not None for t in search.trials)
    assert [t.state for t in search.trials if t.number == 0] == ["RUNNING"]
