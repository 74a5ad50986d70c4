"""What every store has to do, whichever server or disk is behind it."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from singer_ray.storage.address import Address
from singer_ray.storage.protocol import ObjectStore, ServerStore
from singer_ray.storage.s3.tags import MULTIPART
from singer_ray.storage.settings import Defaults
from singer_ray.storage.stores import FILE, STORES, open_store

Get = Callable[[str], object]


def local_place(get: Get) -> tuple[str, str | None]:
    return f"{get('tmp_path')}/store", None


def s3_place(get: Get) -> tuple[str, str | None]:
    return f"s3://{get('bucket')}/some/where", str(get("server"))


PLACES = {FILE: local_place, "s3": s3_place}
"""Scheme -> address and endpoint of an empty place to test in; every registered store needs one."""


@pytest.fixture(params=[FILE, *(pytest.param(name, marks=pytest.mark.slow) for name in STORES if name != FILE)])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    """An empty store of each kind."""
    address, endpoint = PLACES[request.param](request.getfixturevalue)
    store = open_store(Address.of(address), Defaults(endpoint=endpoint))
    store.check(writable=True)
    return store


def test_it_says_where_it_is(store: ObjectStore) -> None:
    assert isinstance(store, ObjectStore)
    assert store.address.endswith(store.name)
    inner = store.below("a/b")
    assert (inner.address, inner.name) == (f"{store.address}/a/b", "b")
    assert (store.path is None) == isinstance(store, ServerStore)
    assert store.path is None or inner.path == store.path / "a/b"


def test_what_is_put_is_got_back_and_put_over(store: ObjectStore) -> None:
    assert store.get("a/x y#%41?.bin") is None
    for content in (b"first", b"", bytes(range(256)) * 20):
        store.put("a/x y#%41?.bin", content)
        assert store.get("a/x y#%41?.bin") == content
        assert store.below("a").get("x y#%41?.bin") == content


def test_a_file_is_streamed_with_its_size_and_hash(store: ObjectStore) -> None:
    content = bytes(range(256)) * (MULTIPART // 256) + b"end"
    store.put("large", content)
    pieces: list[bytes] = []
    assert store.stream("large", pieces.append) == (len(content), hashlib.sha256(content).hexdigest())
    assert len(pieces) > 1
    assert b"".join(pieces) == content
    assert store.stream("absent", pieces.append) is None
    store.require("large")


def test_files_and_folders_are_listed(store: ObjectStore) -> None:
    assert (dict(store.list()), list(store.folders())) == ({}, [])
    for name in ("x", "b/x", "a/x", "a/deep/er"):
        store.put(name, name.encode())
    assert {name: entry.size for name, entry in store.list().items()} == {"x": 1, "b/x": 3, "a/x": 3, "a/deep/er": 9}
    assert sorted(store.list("a")) == ["a/deep/er", "a/x"]
    assert sorted(store.below("a").list()) == ["deep/er", "x"]
    assert (store.folders(), store.folders("a"), store.folders("none")) == (["a", "b"], ["a/deep"], [])


def test_writes_and_removals_heed_their_conditions(store: ObjectStore) -> None:
    assert store.look("a/x") is None
    assert not store.swap("a/x", b"0", "no-tag")
    assert store.create("a/x", b"1")
    assert not store.create("a/x", b"2")
    first = store.look("a/x")
    assert first is not None
    assert first.content == b"1"
    assert -2 < first.age < 5
    assert not store.swap("a/x", b"3", "no-tag")
    assert store.swap("a/x", b"3", first.tag)
    assert not store.swap("a/x", b"4", first.tag)
    store.delete(["a/x"], first.tag)
    second = store.look("a/x")
    assert second is not None
    assert second.content == b"3"
    assert second.tag != first.tag
    assert sorted(store.list()) == ["a/x"]  # no drafts are left
    store.delete(["a/x"], second.tag)
    assert store.look("a/x") is None


def test_of_many_that_create_one_file_one_does(store: ObjectStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda number: store.create("x", str(number).encode()), range(8)))
    assert sum(created) == 1
    assert store.get("x") == str(created.index(True)).encode()


def test_a_file_is_copied(store: ObjectStore) -> None:
    store.put("a/x", b"new")
    store.put("b/x", b"old")
    for target in ("b/x", "c/y"):
        store.copy("a/x", target)
        assert store.get(target) == b"new"
    assert store.get("a/x") == b"new"
    assert sorted(store.list()) == ["a/x", "b/x", "c/y"]


def test_what_is_deleted_is_gone_and_the_rest_stays(store: ObjectStore) -> None:
    for name in ("a/x", "a/y", "z"):
        store.put(name, b"1")
    store.delete(["a/x", "z", "never/there"])
    assert sorted(store.list()) == ["a/y"]
    assert store.abort_uploads() == 0


def test_it_can_be_sent_to_another_process(store: ObjectStore) -> None:
    store.put("x", b"1")
    sent: ObjectStore = pickle.loads(pickle.dumps(store.below("a")))
    sent.put("y", b"2")
    assert store.get("a/y") == b"2"


@pytest.mark.slow
@pytest.mark.parametrize("store", [scheme for scheme in STORES if scheme != FILE], indirect=True)
@pytest.mark.parametrize("size", [100, MULTIPART + 3])
def test_a_server_takes_files_under_a_condition(store: ObjectStore, tmp_path: Path, size: int) -> None:
    assert isinstance(store, ServerStore)
    path = tmp_path / "file"
    path.write_bytes(b"a" * size)
    sent = store.put_file("p/file", path, over=None)
    assert sent is not None
    assert (sent.confirmed, sent.sha256) == (True, hashlib.sha256(b"a" * size).hexdigest())
    assert sent.tag == store.list("p")["p/file"].tag == store.tag_of(path)
    assert store.put_file("p/file", path, over=None) is None
    path.write_bytes(b"b" * size)
    if size < MULTIPART:  # of contents in parts, moto heeds no If-Match
        assert store.put_file("p/file", path, over="0" * 32) is None
        assert store.get("p/file") == b"a" * size
    assert store.put_file("p/file", path, over=sent.tag) is not None
    assert store.get("p/file") == b"b" * size
    assert store.seal("p/manifest", b"1")
    assert not store.seal("p/manifest", b"2")
    assert store.abort_uploads() == 0
