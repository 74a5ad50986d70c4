"""What is read of a search's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from singer_ray.reporting.record import read_search
from tests.reporting.searches import SINGER, fake_search, journal_of


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
    for trial in search.finished:
        assert trial.values is not None
        beaten = [
            t for t in search.finished if t.values and t is not trial and t.values[0] >= trial.values[0]
            and t.values[1] <= trial.values[1] and t.values != trial.values
        ]  # fmt: skip
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
