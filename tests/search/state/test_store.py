"""A search's folder and its copy: one driver, one writer, nothing deleted that is another's; a store that is away."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from singer_ray.config import load_preset
from singer_ray.errors import UserError
from singer_ray.layout import JOURNAL, LEASE, LOCK, RECORD
from singer_ray.search.state import store as stores
from singer_ray.search.state.lock import refuse_driven
from singer_ray.search.state.store import SearchStore
from singer_ray.search.state.trial_checkpoint import TrialCheckpoint, read_saved
from singer_ray.search.study.opening import create_study, remove_study
from singer_ray.search.study.schema import CHECKPOINT, REPEATS, SEARCH, UNSAVED
from singer_ray.search.workers.trainer_actor import TrainerActor
from singer_ray.search.workers.worker_group import WorkerGroupActor
from singer_ray.storage import Folder
from tests.search.studies import MIOU


@pytest.fixture(autouse=True)
def _short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "LEASE_SECONDS", 2.0)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, each in no time."""
    found: list[float] = []
    monkeypatch.setattr("time.sleep", found.append)
    return found


def store(out: Path, shared: Path | None = None) -> SearchStore:
    return SearchStore(out, Folder(str(shared)) if shared else None, lambda line: None)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_folder_that_is_its_own_copy_is_appended_to_and_never_replaced(tmp_path: Path) -> None:
    out = tmp_path / "storage" / "search"
    there = store(out, tmp_path / "storage" / ".." / "storage" / "search")
    with there.driving(), (out / JOURNAL).open("ab") as journal:
        journal.write(b"1\n")
        journal.flush()
        there.saved(True)
        journal.write(b"2\n")  # into the file that this process opened, as Optuna does
        journal.flush()
        there.saved(True)
        assert (out / LEASE).exists()  # processes of other machines see it
        assert Path(there.trials.address).resolve() == out / "trials"
    assert (out / JOURNAL).read_bytes() == b"1\n2\n"


def test_a_folder_that_is_driven_elsewhere_is_not_mended(tmp_path: Path) -> None:
    storage, out = tmp_path / "storage" / "search", tmp_path / "here" / "search"
    with store(out, storage).driving():
        (storage / JOURNAL).write_bytes(b'{"a": 1}\n{"b"')  # being written
        with pytest.raises(UserError, match=r"Another process \(on .*\) drives the search at"):
            store(storage, storage).driving().__enter__()
        assert (storage / JOURNAL).read_bytes() == b'{"a": 1}\n{"b"'


def test_a_driven_folder_is_refused_and_one_that_stayed_empty_goes_away(tmp_path: Path) -> None:
    out = tmp_path / "search"
    with store(out).driving():
        with pytest.raises(UserError, match="Another process drives the search in"):
            refuse_driven(out)
        with pytest.raises(UserError, match="Another process drives the search in"):
            store(out).driving().__enter__()
    assert not out.exists()
    out.mkdir()
    with store(out).driving():
        pass
    assert not files(out)
    with store(out).driving():
        store(out).write_record({"id": "a"})
    refuse_driven(out)
    assert files(out) == {RECORD, LOCK}


def test_both_places_are_emptied_by_who_holds_them(tmp_path: Path) -> None:
    out, copy = tmp_path / "search", tmp_path / "storage" / "search"
    for place, name in ((out, "here"), (copy, "there")):
        (place / "trials").mkdir(parents=True)
        (place / RECORD).write_text(json.dumps({"id": name}))
        (place / "trials" / "checkpoint.pt").write_bytes(b"0")
    new = store(out, copy)
    with new.driving():
        assert new.ids() == {"here", "there"}
        with pytest.raises(UserError, match="holds a search already"):
            new.refuse_taken()
        assert files(copy) == {RECORD, LEASE, "trials/checkpoint.pt"}
        new.clear()
        assert files(out) == {LOCK}
        assert files(copy) == {LEASE}


def test_nothing_is_brought_to_a_copy_that_was_refused(tmp_path: Path) -> None:
    out, copy = tmp_path / "search", tmp_path / "storage" / "search"
    out.mkdir()
    (out / RECORD).write_text(json.dumps({"id": "here"}) + "\n")
    with pytest.raises(RuntimeError), store(out, copy).driving():
        raise RuntimeError("the study is another search's")
    assert not files(copy)


def test_only_the_study_of_the_overwritten_search_is_deleted(tmp_path: Path) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/study.db")

    def names() -> list[str]:
        return sorted(study.study_name for study in storage.get_all_studies())

    create_study(storage, "search", MIOU, **{SEARCH: "mine"})
    create_study(storage, f"search{REPEATS}", MIOU)
    create_study(storage, "other", MIOU, **{SEARCH: "theirs"})
    with pytest.raises(UserError, match=r"There is a study 'other' at that address already, of another search"):
        remove_study(storage, "other", {"mine"})
    remove_study(storage, "none", {"mine"})
    assert names() == ["other", "search", f"search{REPEATS}"]
    remove_study(storage, "search", {"mine"})
    assert names() == ["other"]


class Away(Folder):
    """A store that does not answer the next `times` requests."""

    times = 0.0

    def read(self, name: str) -> bytes | None:
        self._answer(name, "read")
        return super().read(name)

    def write(self, name: str, content: bytes) -> str:
        self._answer(name, "written")
        return super().write(name, content)

    def _answer(self, name: str, what: str) -> None:
        if self.times > 0:
            self.times -= 1
            raise UserError(f"{self.address}/{name} cannot be {what}: no answer.")


def test_a_store_may_be_away_for_minutes(tmp_path: Path, slept: list[float]) -> None:
    store = Away(str(tmp_path))
    trainer: Any = SimpleNamespace(state=lambda: {"step": 3})

    def save() -> dict[str, Any]:
        return TrialCheckpoint(store, "000", {}, None).save(trainer, {"epoch": 1}, 2.0)

    store.times = 5
    assert save() == {"epoch": 1, "trained_seconds": 2.0, CHECKPOINT: f"{tmp_path}/000/checkpoint.pt"}
    store.times = 5
    assert read_saved(store, "000") == (tmp_path / "000" / "checkpoint.pt").read_bytes()
    slept.clear()
    store.times = float("inf")
    assert save() == {UNSAVED: f"{tmp_path}/000/checkpoint.pt cannot be written: no answer."}
    assert sum(slept) > 120


def test_a_store_that_stays_away_is_no_fault_of_the_trial(tmp_path: Path, slept: list[float]) -> None:
    store = Away(str(tmp_path))
    store.times = float("inf")
    config = load_preset("demo")

    async def close() -> None: ...

    group: Any = SimpleNamespace(close=close, trials=store, config=config)
    alone = TrainerActor(config.model_dump(), None, store)
    for found in (alone.join(("000", "a"), {}), asyncio.run(WorkerGroupActor.join(group, ("000", "a"), {}))):
        assert found == {UNSAVED: f"{tmp_path}/000/checkpoint.pt cannot be read: no answer."}
