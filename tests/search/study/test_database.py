"""Studies in databases: who only reads leaves no trace, in whatever place a search names."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from singer_ray.errors import UserError
from singer_ray.search.study import database as databases
from singer_ray.search.study.opening import create_study, load_study, storage_of
from tests.search.studies import MIOU


def tables(path: Path) -> set[str]:
    with sqlite3.connect(path) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


@pytest.mark.parametrize("access", ["read", "write"])
def test_no_tables_are_made_where_there_is_no_study(access: Any, tmp_path: Path) -> None:
    other, gone = tmp_path / "bank.db", tmp_path / "gone.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE accounts (name TEXT)")
    for path in (other, gone):
        with pytest.raises(UserError, match=r"cannot be opened: .*Correct search.study"):
            storage_of(f"sqlite:///{path}", tmp_path, access)
    assert tables(other) == {"accounts"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bank.db"]
    with pytest.raises(UserError, match=r"study.journal is missing"):
        storage_of(None, tmp_path, access)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bank.db"]


@pytest.mark.slow
def test_a_study_that_is_read_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    create_study(storage_of(f"sqlite:///{path}", tmp_path), "s", MIOU)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    study = load_study(storage_of(f"sqlite:///{path}", tmp_path, "read"), "s")
    assert study.metric_names == ["val/miou"]
    with pytest.raises(optuna.exceptions.StorageInternalError):
        study.ask()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert load_study(storage_of(f"sqlite:///{path}", tmp_path, "write"), "s").ask().number == 0


@pytest.mark.parametrize("address", ["postgresql://me@db/x", "mysql://me@db/x"])
def test_servers_are_asked_to_refuse_writing(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}
    monkeypatch.setattr(databases, "RDBStorage", lambda url, **given: made.update(given))
    databases.database(address, "read")
    assert made["skip_table_creation"]
    said: list[str] = []
    cursor = SimpleNamespace(execute=said.append, close=lambda: None)
    connection = SimpleNamespace(cursor=lambda: cursor, commit=lambda: said.append("commit"))
    ((listener, event),) = made["engine_kwargs"]["pool_events"]
    listener(connection, None)
    assert event == "connect"
    assert said[0].startswith("SET SESSION")
    assert said[0].endswith("READ ONLY")
    assert said[1] == "commit", "else the connection forgets it"
    made.clear()
    databases.database(address, "write")
    assert "pool_events" not in made["engine_kwargs"]


def test_passwords_that_are_missing_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(*given: Any, **named: Any) -> None:
        raise RuntimeError("fe_sendauth: no password supplied")

    monkeypatch.setattr(databases, "RDBStorage", refused)
    monkeypatch.delenv("SINGER_RAY_STUDY_URL", raising=False)
    with pytest.raises(UserError, match=r"set PGPASSWORD, write it to ~/.pgpass, or set SINGER_RAY_STUDY_URL"):
        storage_of("postgresql://me@db/x", tmp_path, "write")
    with pytest.raises(UserError) as caught:
        storage_of("postgresql://me:secret@db/x", tmp_path, "write")
    assert "PGPASSWORD" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_attributes_that_no_search_writes_are_not_seen(tmp_path: Path) -> None:
    study = create_study(storage_of(None, tmp_path), "s", MIOU)
    kept = {"trial_id": "t", "metrics": {"val/miou": 0.5}, "seconds": 2.0}
    false = {"metrics": "gone", "fault": ["x"], "resumed_from_epoch": "2", "stopped": {"epoch": 1}, "own": 1}
    noted: dict[str, Any] = {
        "fixed_params": [1],
        "epoch:x": {},
        "epoch:2": {"a": "b"},
        "completed_rung_0": "x",
        "cma:optimizer:0": "80",
    }
    for given in (kept, false):
        trial = study.ask()
        for key, value in given.items():
            trial.set_user_attr(key, value)
        for key, value in noted.items():
            study._storage.set_trial_system_attr(trial._trial_id, key, value)
    study.set_user_attr("epochs", "six")
    seen = load_study(storage_of(None, tmp_path, "read"), "s")
    assert [row.user_attrs for row in seen.trials] == [kept, {}]
    assert [row.system_attrs for row in seen.trials] == [{}, {}]
    assert "epochs" not in seen.user_attrs
    assert optuna.load_study(study_name="s", storage=storage_of(None, tmp_path)).trials[1].user_attrs == false
