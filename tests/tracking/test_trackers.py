"""Curves arrive at each tracker, once, whatever happens to the driver or the server."""

from __future__ import annotations

import json
import math
import sys
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

import singer_ray
from singer_ray import tracking
from singer_ray.config import SearchConfig, TrainConfig
from singer_ray.errors import UserError
from singer_ray.tracking import background, trackers
from singer_ray.tracking.background import Background
from singer_ray.tracking.callback import Callback
from singer_ray.tracking.tracker import Tracker
from singer_ray.tracking.trackers import check_trackers, make_trackers, tracker_class, tracker_names

pytestmark = pytest.mark.slow

PARAMETERS = {"method.rank": 16, "train.lr": 4e-3, "method.refiner": "singer"}
PROJECT = Path(singer_ray.__file__).parent.parent / "pyproject.toml"
EXTRAS = [name for name in tracker_names() if tracker_class(name).package]
EPOCHS = {1: 0.25, 2: 0.5, 3: 0.75, 4: 0.875}


def test_the_settings_may_name_the_trackers_that_there_are_and_the_package_installs_their_extras() -> None:
    for block in (TrainConfig, SearchConfig):
        allowed = block.model_fields["trackers"].annotation
        assert sorted(get_args(get_args(allowed)[0])) == tracker_names() != []
    extras = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert EXTRAS
    assert set(EXTRAS) <= set(extras)
    for name in tracker_names():
        assert issubclass(tracker_class(name), Tracker)


def result(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "val/miou": EPOCHS[epoch], "train/loss": 1 / epoch, "test/miou": math.nan, "fault": None}


def driver(name: str, folder: Path, epochs: range, *, ends: bool, said: list[str]) -> None:
    """What one life of a driver tells a tracker about two trials."""
    (tracker,) = make_trackers([name], "my search", folder, said.append)
    for trial in (0, 7):
        tracker.on_trial_start(f"{trial:03d}", PARAMETERS | {"method.rank": 16 + trial})
    for epoch in epochs:
        for trial in (0, 7):
            tracker.on_epoch_end(f"{trial:03d}", epoch, result(epoch))
    if ends:
        tracker.on_trial_end("000", "COMPLETE", result(epochs[-1]))
        tracker.on_trial_end("007", "PRUNED", result(epochs[-1]))
    tracker.close()


@pytest.fixture(autouse=True)
def _wandb_reads_the_environment_anew() -> Iterator[None]:
    yield
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


@pytest.fixture
def told_twice(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A driver that died after epoch 3, and one that resumed behind epoch 1 and came to the end."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(sys, "argv", ["tune", "--search.study", "postgresql://me:sesame@db/x"])
    said: list[str] = []
    for epochs, ends in ((range(1, 4), False), (range(2, 5), True)):
        driver(request.param, tmp_path, epochs, ends=ends, said=said)
    assert said == []
    return tmp_path


@pytest.mark.parametrize("told_twice", ["tensorboard"], indirect=True)
def test_tensorboard_shows_every_epoch_once_and_the_parameters(told_twice: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    assert sorted(p.name for p in (told_twice / "tensorboard").iterdir()) == ["000", "007"]
    read = EventAccumulator(str(told_twice / "tensorboard" / "007"))
    read.Reload()
    assert {e.step: e.value for e in read.Scalars("val/miou")} == EPOCHS
    assert [e.step for e in read.Scalars("train/loss")] == [1, 2, 3, 4]
    assert "test/miou" not in read.Tags()["scalars"]
    parts = [
        HParamsPluginData.FromString(read.SummaryMetadata(tag).plugin_data.content)
        for tag in read.PluginTagToContent("hparams")
    ]
    assert {tag.rpartition("/")[2] for tag in read.PluginTagToContent("hparams")} == {
        "experiment",
        "session_start_info",
        "session_end_info",
    }
    (start,) = (part.session_start_info for part in parts if part.HasField("session_start_info"))
    assert start.hparams["method.rank"].number_value == 23
    assert start.hparams["method.refiner"].string_value == "singer"
    (shown,) = (part.experiment for part in parts if part.HasField("experiment"))
    assert [metric.name.tag for metric in shown.metric_infos] == ["val/miou"]


@pytest.mark.parametrize("told_twice", ["mlflow"], indirect=True)
def test_mlflow_has_one_run_a_trial_with_every_epoch_once(told_twice: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{told_twice / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("my search")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert {name: run.info.status for name, run in runs.items()} == {"000": "FINISHED", "007": "KILLED"}
    run = runs["007"]
    assert run.data.params == {"method.rank": "23", "train.lr": "0.004", "method.refiner": "singer"}
    assert run.data.tags["state"] == "PRUNED"
    history = client.get_metric_history(run.info.run_id, "val/miou")
    assert [(point.step, point.value) for point in history] == list(EPOCHS.items())


@pytest.mark.parametrize("told_twice", ["wandb"], indirect=True)
def test_wandb_keeps_offline_what_each_driver_said_under_one_id_a_trial(told_twice: Path) -> None:
    import wandb

    wandb.teardown()  # as at the end of a process: now everything is in the files
    lives = sorted(
        (told_twice / "wandb").glob("offline-run-*/run-my-search-007.wandb"), key=lambda p: p.stat().st_mtime
    )
    files = [path for path in (told_twice / "wandb").rglob("*") if path.is_file()]
    assert not [path for path in files if b"sesame" in path.read_bytes()], "the command line, with its passwords"
    assert [history(life) for life in lives] == [{n: EPOCHS[n] for n in epochs} for epochs in ((1, 2, 3), (2, 3, 4))]


def history(path: Path) -> dict[int, float]:
    """val/miou by step, in a file that `wandb sync` would send: records of checksum, length, kind and content."""
    from wandb.proto import wandb_internal_pb2

    record_type: Any = wandb_internal_pb2
    data, place, found = path.read_bytes(), 7, {}
    while place < len(data):
        length = int.from_bytes(data[place + 4 : place + 6], "little")
        record = record_type.Record.FromString(data[place + 7 : place + 7 + length])
        place += 7 + length
        for item in record.history.item:
            if (item.key or "/".join(item.nested_key)) == "val/miou":
                found[record.history.step.num] = json.loads(item.value_json)
    return found


@pytest.mark.parametrize("name", EXTRAS)
def test_an_extra_that_is_missing_is_named_before_the_search(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_class(name), "package", "a_package_that_is_not_there")
    with pytest.raises(UserError, match=rf"{name!r}, which is not installed: pip install 'singer-ray\[{name}\]'"):
        check_trackers(["tensorboard", name])


def test_wandb_without_a_key_is_refused_before_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "online")
    for variable in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(UserError, match=r"no API key for it\. Run `wandb login`"):
        check_trackers(["wandb"])


def test_an_mlflow_server_that_does_not_answer_is_named_before_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9 cannot be used") as caught:
        check_trackers(["mlflow"])
    assert "\n" not in str(caught.value)


class Gone(Callback):
    """A tracker whose server goes away after the first epoch."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_trial_start(self, trial: str, parameters: Mapping[str, Any]) -> None:
        self.heard.append("start")

    def on_epoch_end(self, trial: str, epoch: int, metrics: Mapping[str, Any]) -> None:
        self.heard.append(f"log {epoch}")
        if epoch == 2:
            raise ConnectionError("server\nis gone")

    def on_trial_end(self, trial: str, state: str, metrics: Mapping[str, Any]) -> None:
        self.heard.append("end")

    def close(self) -> None:
        self.heard.append("close")


def test_a_tracker_that_fails_says_so_once_and_the_search_goes_on() -> None:
    gone = Gone()
    said: list[str] = []
    tracker = Background("gone", lambda: gone, said.append)
    tracker.on_trial_start("000", {})
    for epoch in (1, 2, 3):
        tracker.on_epoch_end("000", epoch, {})
    tracker.on_trial_end("000", "COMPLETE", {})
    tracker.close()
    assert gone.heard == ["start", "log 1", "log 2", "close"]
    assert said == ["gone failed and will be left out from here on; the search goes on: server is gone"]


def test_a_tracker_that_hangs_delays_neither_the_trials_nor_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "PATIENCE", 0.1)
    free = threading.Event()

    class Slow(Gone):
        def on_trial_start(self, trial: str, parameters: Mapping[str, Any]) -> None:
            free.wait()

    slow = Slow()
    said: list[str] = []
    tracker = Background("slow", lambda: slow, said.append)
    tracker.on_trial_start("000", {})
    tracker.on_epoch_end("000", 1, {})
    tracker.close()
    assert said == ["slow did not take the last figures within 0.1 s: they may be missing there."]
    free.set()
    tracker.thread.join(10)
    assert slow.heard == ["log 1", "close"]


def test_what_cannot_be_made_is_named_and_left_out() -> None:
    def fail() -> Gone:
        raise RuntimeError("no room\x1b[31m")

    said: list[str] = []
    tracker = Background("late", fail, said.append)
    tracker.on_trial_start("000", {})
    tracker.close()
    assert said == ["late failed and will be left out from here on; the search goes on: no room\\x1b[31m"]


def test_a_full_disk_ends_no_more_than_the_curves_of_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tensorboardX.record_writer.open_file", lambda path: open("/dev/full", "wb"))  # noqa: SIM115
    said: list[str] = []
    begin = time.monotonic()
    driver("tensorboard", tmp_path, range(1, 5), ends=True, said=said)
    (line,) = said
    assert line.startswith("tensorboard failed and will be left out from here on; the search goes on: ")
    assert line.endswith("No space left on device")
    assert time.monotonic() - begin < 30  # its own writer would never come back


def test_an_mlflow_server_that_goes_away_in_the_middle_of_a_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tracker,) = make_trackers(["mlflow"], "x", tmp_path, said.append)
    tracker.on_trial_start("000", {})
    tracker.on_epoch_end("000", 1, {"val/miou": 0.5})
    monkeypatch.setattr("mlflow.MlflowClient.log_batch", _refused)
    tracker.on_epoch_end("000", 2, {"val/miou": 0.5})
    tracker.on_trial_end("000", "COMPLETE", {})
    tracker.close()
    assert said == ["mlflow failed and will be left out from here on; the search goes on: connection refused"]


def _refused(*given: Any, **more: Any) -> None:
    raise ConnectionError("connection refused")


def test_a_key_that_wandb_refuses_is_named_before_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr("wandb.login", _refused)
    with pytest.raises(UserError, match=r"'wandb', and it cannot be used: connection refused\. Run `wandb login`"):
        check_trackers(["wandb"])


@pytest.mark.parametrize("name", tracker_names())
def test_trials_that_no_host_took_are_no_trouble(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    said: list[str] = []
    (tracker,) = make_trackers([name], "x", tmp_path, said.append)
    tracker.on_trial_queued("000", PARAMETERS)
    tracker.on_trial_end("000", "WAITING", {})
    tracker.close()
    assert said == []


def test_the_tracker_that_the_readme_shows_is_found_and_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(tracking.__file__).parent / "README.md").read_text(encoding="utf-8")
    (tmp_path / "jsonl.py").write_text(readme.split("```python\n")[1].split("```")[0], encoding="utf-8")
    monkeypatch.setattr(trackers, "__path__", [*trackers.__path__, str(tmp_path)])
    assert "jsonl" in tracker_names()
    said: list[str] = []
    check_trackers(["jsonl"])
    driver("jsonl", tmp_path, range(1, 3), ends=True, said=said)
    lines = [json.loads(line) for line in (tmp_path / "curves.jsonl").read_text(encoding="utf-8").splitlines()]
    assert said == []
    assert [(line["trial"], line["epoch"], line["val/miou"]) for line in lines] == [
        (trial, epoch, EPOCHS[epoch]) for epoch in (1, 2) for trial in ("000", "007")
    ]
