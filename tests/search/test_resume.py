"""Searches that are cut off and go on: on this disk, from S3 alone, after a full disk; and what cannot go on."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pandas as pd
import pytest
import yaml
from rich.console import Console

from singer_ray.errors import UserError
from singer_ray.layout import LEASE
from singer_ray.nodes import ray_cluster
from singer_ray.search.driver.search import resume_search, run_search
from singer_ray.search.driver.searched import Searched
from singer_ray.search.state import heartbeat
from singer_ray.search.state import store as stores
from singer_ray.search.state.store import SearchStore
from singer_ray.search.study.opening import create_study, load_study, storage_of
from singer_ray.search.study.schema import SEARCH
from singer_ray.storage import Folder
from tests.faults.records import Row, read_rows
from tests.faults.session import Session, started
from tests.search.studies import MIOU
from tests.search.whole import Listener, settings
from tests.servers import ENVIRONMENT, s3_server

pytestmark = pytest.mark.ray

SPACE = {"train.lr": {"type": "loguniform", "low": 1e-3, "high": 4e-3}}
QUICK: dict[str, Any] = {
    "search.trials": 2,
    "search.concurrent": 1,
    "search.scheduler": "none",
    "train.epochs": 2,
    "train.steps_per_epoch": 1,
    "export.top": 1,
}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as address, pytest.MonkeyPatch.context() as patch:
        for name, value in (ENVIRONMENT | {"AWS_ENDPOINT_URL": address}).items():
            patch.setenv(name, value)
        boto3.client("s3", endpoint_url=address).create_bucket(Bucket="searches")
        yield address


@pytest.fixture(scope="module")
def _cluster(endpoint: str) -> Iterator[None]:
    with ray_cluster.connected():  # its workers take the server's address from the environment
        yield


@pytest.fixture(autouse=True)
def _short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "LEASE_SECONDS", 2.0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, _cluster: None) -> Searched:
    """A search that nothing interrupted."""
    return searched(tmp_path_factory.mktemp("whole") / "search")


def searched(out: Path, screen: io.StringIO | None = None, *, overwrite: bool = False, **more: Any) -> Searched:
    console = Console(file=screen or io.StringIO(), width=200)
    return run_search(settings(**QUICK | more), out, space=SPACE, overwrite=overwrite, console=console)


def resumed(address: str | Path, screen: io.StringIO | None = None, **more: Any) -> tuple[Searched, str]:
    screen = screen or io.StringIO()
    done = resume_search(str(address), console=Console(file=screen, width=200), **more)
    return done, screen.getvalue()


def rows_in(out: Path) -> list[Row]:
    return read_rows(Folder(str(out)))


def command(out: Path, *more: str) -> list[str]:
    """The arguments of the search that `searched` makes."""
    (out.parent / "space.yaml").write_text(yaml.safe_dump(SPACE))
    scenes = {**settings(**QUICK).model_dump()["data"]["scenes"]}
    flags = {f"data.scenes.{name}": value for name, value in scenes.items()}
    small = settings(**QUICK)
    flags |= {
        "method.prefit.steps": small.method.prefit.steps,
        "method.prefit.batch_size": small.method.prefit.batch_size,
        "evaluation.fit_images": small.evaluation.fit_images,
        "train.batch_size": small.train.batch_size,
        "search.grace_epochs": small.search.grace_epochs,
        "search.space": out.parent / "space.yaml",
        **QUICK,
    }
    return [*(part for name, value in flags.items() for part in (f"--{name}", str(value))), "--out", str(out), *more]


def same(rows: list[Row], others: list[Row]) -> bool:
    return [row.settled for row in rows] == [row.settled for row in others]


@pytest.mark.long
def test_a_search_whose_driver_was_killed_and_then_terminated_ends_as_if_left_alone(
    whole: Searched, tmp_path: Path
) -> None:
    out = tmp_path / "search"
    with started(command(out), tmp_path / "1.log") as session:
        assert session.wait_for("trial 000 epoch 1/2")
        session.driver.send_signal(signal.SIGSTOP)  # so small a search would end before it is killed
        with Session(["--resume", str(out)], tmp_path / "second.log") as second:
            assert second.wait(120) == 2
            (line,) = second.text.splitlines()
        assert line.startswith(f"python -m singer_ray.tune: Another process drives the search in {out}. Watch it with")
        session.kill_driver()
        assert not session.leftovers()
    seen = {row.label: row for row in rows_in(out)}
    with started(["--resume", str(out)], tmp_path / "2.log") as session:
        assert session.wait_for("^trial 00")
        session.driver.send_signal(signal.SIGTERM)
        assert session.wait(60) == 130
        assert f"Go on with: python -m singer_ray.tune --resume {out}" in session.text
        assert "Traceback" not in session.text
        assert not session.leftovers()
    assert "FAIL" not in {row.state for row in rows_in(out)}
    done, _ = resumed(out)
    assert same(rows_in(out), rows_in(whole.out))
    for row in rows_in(out):
        if row.label in seen and seen[row.label].state == "RUNNING" and seen[row.label].epochs:
            assert (row.resumed or 0) >= max(seen[row.label].epochs)
    table, other = (each.leaderboard.drop(columns=["seconds", "resumed_from_epoch"]) for each in (done, whole))
    pd.testing.assert_frame_equal(table, other)


@pytest.mark.long
def test_an_empty_machine_goes_on_from_s3_alone(whole: Searched, tmp_path: Path) -> None:
    """From an address that no part of may be taken for anything else than a key."""
    out = tmp_path / "here" / "search"
    out.parent.mkdir()
    with started(command(out, "--storage", "s3://searches/try#2 ?%"), tmp_path / "1.log") as session:
        assert session.wait_for("trial 001 epoch 1/2")
        session.kill_driver()
    shutil.rmtree(out.parent)
    before = read_rows(Folder("s3://searches/try#2 ?%/search"))
    assert [row.state for row in before] == ["COMPLETE", "RUNNING"]
    done, _ = resumed("s3://searches/try#2 ?%/search", out=tmp_path / "there")
    assert same(rows_in(done.out), rows_in(whole.out))
    assert same(rows_in(done.out)[:1], before[:1])
    assert done.leaderboard.set_index("id").loc["001", "resumed_from_epoch"] in (1, 2)
    assert same(read_rows(Folder("s3://searches/try#2 ?%/search")), rows_in(done.out))


@pytest.mark.long
def test_with_a_shared_folder_that_was_away_and_then_from_there_alone(whole: Searched, tmp_path: Path) -> None:
    """Two trials at a time."""
    storage, out = tmp_path / "storage", tmp_path / "here" / "search"

    def go_away() -> None:
        storage.rename(tmp_path / "away")
        storage.write_text("no folder")
        threading.Timer(2.0, come_back).start()

    def come_back() -> None:
        storage.unlink()
        (tmp_path / "away").rename(storage)

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    screen = Listener("trial 000 started", go_away, "epoch 1/2", interrupt)
    with pytest.raises(KeyboardInterrupt):
        searched(out, screen, **QUICK | {"train.storage": str(storage), "search.concurrent": 2})
    assert not storage.is_file()
    shutil.rmtree(out)
    storage.rename(tmp_path / "mounted")  # elsewhere than on the first machine
    before = rows_in(tmp_path / "mounted" / "search")
    assert [row.state for row in before] == ["RUNNING", "RUNNING"]
    done, _ = resumed(tmp_path / "mounted" / "search")
    assert same(rows_in(tmp_path / "mounted" / "search"), rows_in(whole.out))
    assert done.leaderboard["resumed_from_epoch"].max() in (1, 2)
    assert not storage.exists()


@pytest.mark.long
@pytest.mark.usefixtures("_cluster")
def test_overwriting_takes_the_place_and_the_study_of_the_search_that_was_there(tmp_path: Path) -> None:
    out, copy, database = tmp_path / "search", tmp_path / "storage" / "search", f"sqlite:///{tmp_path}/study.db"
    more: dict[str, Any] = {"search.study": database, "train.storage": str(copy.parent), "search.trials": 1}
    create_study(storage_of(database, out), "search", MIOU, **{SEARCH: "mine"}).ask()
    for place in (out, copy):
        place.mkdir(parents=True)
        (place / "search.json").write_text('{"id": "mine"}\n')
    with SearchStore(tmp_path / "elsewhere", Folder(str(copy)), print).driving():
        with pytest.raises(UserError, match=r"Another process \(on .*\) drives the search at .*storage/search"):
            searched(out, overwrite=True, **more)
        assert json.loads((copy / "search.json").read_text()) == {"id": "mine"}
        assert len(load_study(storage_of(database, out), "search").trials) == 1
    searched(out, overwrite=True, **more)
    (row,) = load_study(storage_of(database, out), "search").trials
    assert row.state.name == "COMPLETE"
    assert json.loads((copy / "search.json").read_text())["id"] == json.loads((out / "search.json").read_text())["id"]


@pytest.mark.long
def test_after_ctrl_c_and_a_full_disk_it_goes_on(
    tmp_path: Path, whole: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "search"
    go_on = f"Go on with: python -m singer_ray.tune --resume {out}"
    monkeypatch.setattr(heartbeat, "EVERY", 0.1)

    def interrupt() -> None:
        noted = set()
        for _ in range(20):
            noted.add(json.loads((out / "search.json").read_text())["seconds"])
            time.sleep(0.05)
        assert len(noted) > 3  # also while nothing happens: whatever kills the driver, the spending is known
        os.kill(os.getpid(), signal.SIGINT)

    screen = Listener("trial 000 epoch 1/2", interrupt)
    with pytest.raises(KeyboardInterrupt):
        searched(out, screen)
    assert go_on in screen.getvalue()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:  # no file of this process may grow beyond what the study has now
        resource.setrlimit(resource.RLIMIT_FSIZE, ((out / "study.journal").stat().st_size + 30, hard))

    try:
        with pytest.raises(UserError) as caught:
            resumed(out, screen=Listener("trial 000 epoch 1/2", fill))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in str(caught.value)
    assert go_on in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    resumed(out)
    assert same(rows_in(out), rows_in(whole.out))


@pytest.mark.long
def test_a_finished_search_says_so_and_can_be_given_more_trials(whole: Searched, tmp_path: Path) -> None:
    out = tmp_path / "search"
    shutil.copytree(whole.out, out)
    (out / "leaderboard.csv").unlink()
    with (out / "study.journal").open("ab") as journal:
        journal.write(b'{"op_code":8,"worker_id":"a","trial')  # the power went away
    (out / "study.journal.lock").symlink_to("study.journal")
    kept = json.loads((out / "search.json").read_text())
    assert kept["finished"]
    (out / "search.json").write_text(json.dumps(kept | {"finished": False, "end": "stopped: 9 s are used up"}))
    done, screen = resumed(out)
    kept = json.loads((out / "search.json").read_text())
    assert kept["finished"]
    assert "end" not in kept
    assert "has its 2 trials already" in screen
    pd.testing.assert_frame_equal(done.leaderboard, whole.leaderboard)
    assert (out / "leaderboard.csv").exists()
    done, _ = resumed(out, changes={"search.trials": 3})
    rows = rows_in(out)
    assert same(rows[:2], rows_in(whole.out))
    assert [row.state for row in rows] == ["COMPLETE"] * 3
    assert len(done.leaderboard) == 3


@pytest.mark.long
def test_what_cannot_go_on_is_refused_in_a_line(whole: Searched, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no search in .*: it has no search.json"):
        resumed(tmp_path)
    with pytest.raises(UserError, match=r"There is no search at s3://searches/none: it has no search.json"):
        resumed("s3://searches/none")
    with pytest.raises(UserError, match=r"method.rank cannot change. Allowed: --search.trials"):
        resumed(whole.out, changes={"method.rank": 4})
    other = Folder("s3://searches/other/search")
    for name in ("search.json", "config.yaml", "space.yaml", "study.journal"):
        other.write(name, (whole.out / name).read_bytes().replace(b'"id": "', b'"id": "f'))
    with pytest.raises(UserError, match=r"holds another search than s3://searches/other/search. Use --out"):
        resumed("s3://searches/other/search", out=whole.out)
    broken = tmp_path / "broken"
    shutil.copytree(whole.out, broken)
    journal = broken / "study.journal"
    journal.write_bytes(journal.read_bytes().replace(b"{", b"", 3))
    with pytest.raises(UserError, match=r"The study at .*study.journal cannot be opened"):
        resumed(broken)


@pytest.mark.parametrize("study", ["postgresql://127.0.0.1:1/x", "sqlite:////no/such/folder/x.db"])
def test_a_study_that_cannot_be_reached_is_said_before_anything_is_written(study: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"The study at .* cannot be opened: .* Correct search.study") as caught:
        searched(tmp_path / "search", None, **QUICK | {"search.study": study})
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "search").exists()


def test_one_driver_at_a_time_for_a_copy_in_s3(endpoint: str, tmp_path: Path) -> None:
    said: list[str] = []

    def store(name: str) -> SearchStore:
        return SearchStore(tmp_path / name, Folder("s3://searches/lease"), said.append)

    with store("one").driving():
        with pytest.raises(UserError, match=r"Another process \(on .*\) drives the search at s3://searches/lease"):
            store("two").driving().__enter__()
        assert Folder("s3://searches/lease").read(LEASE)
    with store("three").driving():
        pass
    assert Folder("s3://searches/lease").read(LEASE) is None
