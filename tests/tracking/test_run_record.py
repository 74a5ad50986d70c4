"""What a run tells trackers and its folder, and that nothing of it ends the run."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from singer_ray.errors import UserError
from singer_ray.tracking import history
from singer_ray.tracking.run_record import COMPLETE, STOPPED, RunRecord
from singer_ray.tracking.trackers import TRAIN, check_trackers, tracker_class


def told(out: Path, epochs: range, said: list[str], *, last: str = COMPLETE) -> RunRecord:
    record = RunRecord(out, {"train.lr": 0.1}, ["tensorboard"], log=said.append)
    done = epochs[0] - 1
    record.begin(done, {"epoch": done, "train/loss": 1 / done, "lr": 0.1} if done else None)
    for epoch in epochs:
        record.epoch({"epoch": epoch, "train/loss": 1 / epoch, "lr": 0.1})
    record.end(last)
    return record


def test_a_resumed_run_has_one_history_one_picture_and_one_line_in_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    said: list[str] = []
    out = tmp_path / "vitt"
    out.mkdir()
    told(out, range(1, 4), said, last=STOPPED)
    (out / "history.csv").write_text("".join((out / "history.csv").read_text().splitlines(keepends=True)[:3]))
    told(out, range(4, 6), said)  # killed between the checkpoint of epoch 3 and its row
    assert said == []
    rows = history.read_history(out)
    assert [(n, row["train/loss"]) for n, row in rows.items()] == [(n, 1 / n) for n in range(1, 6)]
    (folder,) = (out / "tensorboard").iterdir()
    assert folder.name.startswith("vitt-")
    read = EventAccumulator(str(folder))
    read.Reload()
    assert [event.step for event in read.Scalars("train/loss")] == [1, 2, 3, 4, 5]
    assert (out / "curves.png").is_file()


def test_two_runs_of_one_name_have_labels_of_their_own(tmp_path: Path) -> None:
    labels = set()
    for place in ("a", "b"):
        out = tmp_path / place / "vitt"
        out.mkdir(parents=True)
        labels.add(told(out, range(1, 2), []).label)
    assert len(labels) == 2


def test_a_disk_that_takes_no_history_is_said_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(history, "write_whole", full)
    said: list[str] = []
    told(tmp_path, range(1, 4), said)
    (line,) = said
    assert line.startswith("history.csv cannot be written, training goes on without it: ")
    assert line.endswith("No space left on device")


def test_a_tracker_that_is_missing_is_named_by_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_class("wandb"), "package", "wandb_that_is_not_there")
    with pytest.raises(UserError, match=r"^train\.trackers names 'wandb', which is not installed"):
        check_trackers(["wandb"], TRAIN)
