"""history.csv says what each epoch reported, once, whatever the run went through."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from singer_ray.tracking.curves import draw_curves, panels
from singer_ray.tracking.history import History, read_history

LAST = {"epoch": 3, "lr": 0.0, "seconds": 9.0, "train/loss": 1 / 3, "test/miou": 0.75}


def kept(folder: Path, epochs: int = 2) -> History:
    history = History(folder)
    for epoch in range(1, epochs + 1):
        history.add({"epoch": epoch, "train/loss": 1 / epoch, "lr": 0.1 / epoch, "seconds": 3.0 * epoch})
        history.write()
    return history


def test_a_row_an_epoch_with_columns_named_like_metrics_and_every_digit(tmp_path: Path) -> None:
    history = kept(tmp_path)
    history.add(LAST)
    history.write()
    table = pd.read_csv(tmp_path / "history.csv")
    assert list(table.columns) == ["epoch", "seconds", "lr", "train/loss", "test/miou"]
    assert list(table["epoch"]) == [1, 2, 3]
    assert table["train/loss"].iloc[2] == 1 / 3
    assert list(table["test/miou"].isna()) == [True, True, False]
    assert read_history(tmp_path)[3] == LAST
    assert [p.name for p in tmp_path.iterdir()] == ["history.csv"]


def test_a_run_that_goes_on_keeps_what_was_before_and_writes_later_epochs_again(tmp_path: Path) -> None:
    kept(tmp_path, epochs=5)
    again = History.until(tmp_path, 3)
    again.add({"epoch": 4, "train/loss": 9.0})
    again.write()
    found = read_history(tmp_path)
    assert list(found) == [1, 2, 3, 4]
    assert found[4] == {"epoch": 4, "train/loss": 9.0}


@pytest.mark.parametrize("rest", ["3,", "three,x\n", "\x00\x00\n", '3,"open', "nan,nan,nan,nan\n", f"{'9' * 5000},1\n"])
def test_what_is_no_row_is_left_out(tmp_path: Path, rest: str) -> None:
    kept(tmp_path)
    with (tmp_path / "history.csv").open("a") as file:
        file.write(rest)
    assert {1, 2} <= set(read_history(tmp_path)) <= {1, 2, 3}
    History.until(tmp_path, 2).write()
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 3


def test_curves_are_sorted_by_what_they_are_and_drawn(tmp_path: Path) -> None:
    scores = {"val/miou": 0.5, "val/depth_rmse": 0.2, "val/after_norm/miou": 0.6, "student/artifact_share": 0.0}
    rows = {n: {"epoch": n, "lr": 1e-3, "train/kd": 2.0, "train/loss": 3.0, **scores} for n in (1, 2)}
    found = {panel.title.partition(" (")[0]: list(panel.curves) for panel in panels(rows)}
    assert found == {
        "Losses": ["loss", "kd"],
        "Learning rate": ["lr"],
        "Validation scores": ["miou"],
        "Validation errors": ["depth_rmse"],
    }
    draw_curves(rows, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    draw_curves({}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
