"""The record of a search: in a journal or a database, and as others open it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import optuna
import pytest

from singer_ray.errors import UserError
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.opening import create_study, load_study, storage_of
from singer_ray.search.study.schema import objectives_of, own_rows
from singer_ray.storage import without_credentials
from tests.search.studies import MIOU, TWO, new_ask_tell, play


@pytest.mark.parametrize("kind", ["journal", "database"])
@pytest.mark.parametrize("objectives", [MIOU, TWO], ids=["one", "several"])
def test_what_was_told_is_there_for_the_next_process(tmp_path: Path, kind: str, objectives: Objectives) -> None:
    address = None if kind == "journal" else f"sqlite:///{tmp_path}/study.db"
    study = create_study(storage_of(address, tmp_path), "one", objectives, epochs=2)
    ask_tell = new_ask_tell(objectives, epochs=2, study=study)
    play(ask_tell, [0.1, 0.2], {"student/parameters": 5.0})
    play(ask_tell, [0.1])
    ask_tell.ask("running")
    again = load_study(storage_of(address, tmp_path), "one")
    assert objectives_of(again) == objectives
    assert [row.state.name for row in own_rows(again)] == ["COMPLETE", "PRUNED", "RUNNING"]
    assert [row.intermediate_values for row in again.trials] == [{1: 0.1, 2: 0.2}, {1: 0.1}, {}]
    assert again.user_attrs["epochs"] == 2


def test_a_name_that_is_taken_and_one_that_is_not_there(tmp_path: Path) -> None:
    create_study(storage_of(None, tmp_path), "one", MIOU)
    with pytest.raises(UserError, match=r"There is a study .one. at that address already\. Use --resume"):
        create_study(storage_of(None, tmp_path), "one", MIOU)
    with pytest.raises(UserError, match=r"no study .two. there\. Found: one"):
        load_study(storage_of(None, tmp_path), "two")


@pytest.mark.parametrize(
    "address", ["sqlite:////nowhere/x/study.db", "postgresql://me:secret@127.0.0.1:1/db", "not an address"]
)
def test_a_database_that_cannot_be_reached_is_named_without_its_password(address: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        storage_of(address, tmp_path)
    assert str(caught.value).startswith(f"The study at {without_credentials(address)} cannot be opened: ")
    assert "Correct search.study" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.slow
def test_optuna_dashboard_opens_it(tmp_path: Path) -> None:
    ask_tell = new_ask_tell(TWO, epochs=1, study=create_study(storage_of(None, tmp_path), "mine", TWO))
    ask_tell.study.sampler = optuna.samplers.RandomSampler(seed=0)
    play(ask_tell, [0.3], {"student/parameters": 5.0})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [
            Path(sys.executable).with_name("optuna-dashboard"),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            str(tmp_path / "study.journal"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies/0?after=0", timeout=10) as answer:
                    shown = json.load(answer)
                break
            except OSError:
                assert time.monotonic() < deadline, "optuna-dashboard did not answer"
                time.sleep(0.2)
    finally:
        server.kill()
        server.wait()
    assert shown["name"] == "mine"
    assert shown["directions"] == ["maximize", "minimize"]
    assert [trial["state"] for trial in shown["trials"]] == ["Complete"]
    assert shown["trials"][0]["values"] == [0.3, 5.0]
