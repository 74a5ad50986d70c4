"""What a search shows of itself: `--status` of one that runs elsewhere or has ended, and the live table."""

from __future__ import annotations

import io
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from rich.console import Console

from singer_ray.config import load_preset
from singer_ray.errors import UserError
from singer_ray.search.state.store import bring_study
from singer_ray.search.study.opening import create_study, storage_of
from singer_ray.search.study.schema import FAULT, REPEAT_OF, REPEATS, SECONDS, SEED
from singer_ray.search.watch.progress import SearchProgress
from singer_ray.search.watch.status import show_status
from tests.search.studies import MIOU, new_ask_tell, play

HOUR = 3600.0
SLOW = {SECONDS: 60.0}


def session(begin: float, end: float) -> dict[str, Any]:
    """Of search.json, in seconds before now."""
    now = time.time()
    return {
        "begin": now - begin,
        "end": now - end,
        "nodes": 1,
        "concurrent": 1,
        "gpus": 0.0,
        "gpu_hours": 0.0,
        "money": None,
    }


def state_of(out: Path, curves: list[list[float]], *, running: int = 0, **more: Any) -> optuna.Study:
    """Writes a search's folder: trials with these curves, and some that have trained one epoch."""
    out.mkdir()
    config = load_preset("demo").override({"train.epochs": 3, "search.trials": 4, **more})
    (out / "config.yaml").write_text(config.to_yaml())
    study = create_study(storage_of(None, out), "search", MIOU)
    ask_tell = new_ask_tell(study=study, epochs=3)
    for curve in curves:
        play(ask_tell, curve, {"trained_seconds": 180.0})
    for _ in range(running):
        assignment = ask_tell.ask("t")
        assert assignment is not None
        ask_tell.report(assignment.number, {"epoch": 1, "val/miou": 0.1})
    return study


def record(out: Path, *sessions: Mapping[str, Any], **more: Any) -> None:
    content = {"name": "search", "study": None, "sessions": sessions, "price_per_node_hour": None, **more}
    (out / "search.json").write_text(json.dumps(content) + "\n")


def status(out: Path) -> str:
    screen = io.StringIO()
    show_status(str(out), None, Console(file=screen, width=180))
    return screen.getvalue()


CURVE = [0.1, 0.2, 0.3]


def test_of_one_that_runs_with_the_time_left_and_no_alarm(tmp_path: Path) -> None:
    out = tmp_path / "search"
    state_of(out, [CURVE, [0.1, float("nan"), float("nan")]], running=1)
    record(out, session(HOUR, HOUR / 2), session(600, 10), finished=False)
    text = status(out)
    assert re.search(r"│ 000 +│ COMPLETE +│ +3/3 │ +0\.3 │", text)
    assert re.search(r"│ 001 +│ FAIL +│ +[13]/3 │", text)
    assert re.search(r"│ 002 +│ RUNNING +│ +1/3 │ +0\.1 │", text)
    assert re.search(r"3 of 4 trials: 1 complete, 1 fail, 1 running, best val/miou 0.3 \(trial 000\), 4\d min", text)
    assert re.search(r"about \d+ min left", text)
    assert "used: 40 min" in text
    assert "driver" not in text


def test_of_one_whose_driver_is_silent(tmp_path: Path) -> None:
    out = tmp_path / "search"
    state_of(out, [CURVE])  # died between two trials, or while it packaged the best
    record(out, session(HOUR, 300), finished=False)
    assert f"Its driver has been silent for 5 min. If it is dead: python -m singer_ray.tune --resume {out}" in status(
        out
    )


def test_of_one_that_has_not_begun(tmp_path: Path) -> None:
    out = tmp_path / "search"
    state_of(out, [])
    record(out)
    text = status(out)
    assert "0 of 4 trials: none yet, 0 s\n" in text
    assert f"Its driver has not begun. If it is dead: python -m singer_ray.tune --resume {out}" in text


@pytest.mark.parametrize("end", [None, "stopped: 3000 s are used up, search.time_budget is 3000 s"])
def test_of_one_that_has_ended_with_its_repeats(end: str | None, tmp_path: Path) -> None:
    out = tmp_path / "search"
    state_of(out, [CURVE, CURVE], **{"search.repeats": 2, "search.repeat_top": 1})
    again = create_study(storage_of(None, out), f"search{REPEATS}", MIOU)
    again.enqueue_trial({"train.lr": 1e-3}, user_attrs={REPEAT_OF: 1, SEED: 1})
    play(new_ask_tell(study=again, epochs=3, trials=1), [0.1, 0.2, 0.25])
    record(out, session(2 * HOUR, HOUR), finished=True, **({"end": end} if end else {}))
    text = status(out)
    assert re.search(r"│ 001-seed1 +│ COMPLETE +│ +3/3 │ +0\.25 │", text)
    assert f"used: 60 min{'; ' + end if end else ''}\n" in text
    assert "left" not in text
    assert "driver" not in text


def test_of_one_that_trains_its_repeats_after_a_limit(tmp_path: Path) -> None:
    out = tmp_path / "search"
    state_of(out, [CURVE, CURVE], **{"search.repeats": 2, "search.repeat_top": 1, "search.trials": 100})
    again = create_study(storage_of(None, out), f"search{REPEATS}", MIOU)
    again.enqueue_trial({"train.lr": 1e-3}, user_attrs={REPEAT_OF: 1, SEED: 1})
    record(out, session(HOUR, 1), finished=False, end="stopped: the best value gained nothing")
    (left,) = re.findall(r"about (\d+) (?:s|min) left", status(out))
    assert int(left) <= 5  # three epochs of a minute, and no trial of the hundred


def test_of_a_folder_that_may_only_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "search"
    state_of(out, [CURVE])
    record(out, session(HOUR, 1), finished=True)
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: real(path, mode) and not (mode & os.W_OK))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert "1 of 4 trials" in status(out)
    assert bring_study(str(out), None, tmp_path)["name"] == "search"  # what a warm start reads
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    with pytest.raises(UserError, match="There is no search in"):
        status(tmp_path / "none")


@pytest.fixture
def shown() -> Iterator[tuple[SearchProgress, io.StringIO]]:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, color_system=None)
    progress = SearchProgress(console, MIOU, epochs=3, wanted=2, spent=600.0, left=lambda: 30.0)
    progress.show()
    yield progress, screen
    progress.close()


@pytest.mark.slow
def test_the_live_table_follows_the_trials_and_its_clock_goes_on(shown: tuple[SearchProgress, io.StringIO]) -> None:
    progress, screen = shown
    progress.on_trial_start("000", {"train.lr": 0.004, "method.rank": 8})
    progress.on_epoch_end("000", 1, {"val/miou": 0.25, "images_per_second": 12.0})
    progress.on_trial_start("001", {"train.lr": 0.001})
    assert re.search(r"┃ trial ┃ state +┃ epoch ┃ val/miou ┃ +lr ┃ method.rank ┃", screen.getvalue())
    assert re.search(r"│ 000 +│ RUNNING │ +1/3 │ +0\.25 │ 0\.004 │ +8 │", screen.getvalue())
    assert "2 of 2 trials: 2 running, best val/miou 0.25 (trial 000), 10 min, about 30 s left" in screen.getvalue()
    said = len(screen.getvalue())
    deadline = time.monotonic() + 10
    while "about 28 s left" not in screen.getvalue()[said:] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "about 28 s left" in screen.getvalue()[said:]
    progress.on_trial_end("001", "FAIL", {FAULT: "diverged"})
    assert re.search(r"│ 001 +│ FAIL", screen.getvalue())
    assert "1 running, 1 fail" in screen.getvalue()


def test_a_live_table_that_raises_is_named_once_and_lines_follow(
    shown: tuple[SearchProgress, io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    progress, screen = shown
    progress.on_trial_queued("000", {"train.lr": 0.004})

    def fail() -> None:
        raise RuntimeError("no table")

    monkeypatch.setattr(progress, "table", fail)
    progress.on_trial_start("000", {"train.lr": 0.004})
    for epoch in (1, 2):
        progress.on_epoch_end("000", epoch, {"val/miou": 0.25, "images_per_second": 12.0})
    text = screen.getvalue()
    assert text.count("the live table failed and will be left out from here on; the search goes on: no table") == 1
    assert "trial 000 epoch 2/3: val/miou 0.25, 12 images/s" in text
    assert progress.live is None


def test_an_estimate_that_fails_costs_the_time_left_alone() -> None:
    screen = io.StringIO()

    def fail() -> float:
        raise ConnectionError("the database is away")

    progress = SearchProgress(Console(file=screen, width=200), MIOU, epochs=3, wanted=2, left=fail)
    progress.on_trial_queued("000", {"train.lr": 0.004})
    progress.on_trial_end("000", "COMPLETE", {})
    assert screen.getvalue().count("the estimate of the time left failed") == 1
    assert "1 of 2 trials: 1 complete" in screen.getvalue()


def test_the_last_table_stays_on_the_screen_unless_the_leaderboard_follows(
    shown: tuple[SearchProgress, io.StringIO],
) -> None:
    progress, _ = shown
    live = progress.live
    assert live is not None
    progress.close()
    assert not live.transient  # Ctrl-C
    progress.show()
    live, progress.last = progress.live, False
    assert live is not None
    progress.close()
    assert live.transient


def test_who_waits_for_a_host_is_queued_and_has_no_time_yet(tmp_path: Path) -> None:
    out = tmp_path / "search"
    study = state_of(out, [CURVE])
    ask_tell = new_ask_tell(study=study, epochs=3)
    for name in ("a", "b", "c"):
        ask_tell.ask(name)
    ask_tell.placed(100.0, {"001": 99.0, "002": 99.0})
    record(out, {**session(HOUR, 1), "concurrent": 2}, finished=False)
    text = status(out)
    assert re.search(r"│ 001 +│ RUNNING +│ +0/3 │", text)
    assert re.search(r"│ 003 +│ QUEUED +│ +│", text)
    assert "1 complete, 2 running, 1 queued" in text
