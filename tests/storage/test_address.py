"""Addresses as they are typed: nothing of them is cut off, and `~` and variables mean what they mean in a shell."""

from __future__ import annotations

from pathlib import Path

import pyarrow.fs
import pytest

from singer_ray.config import Config, field_names
from singer_ray.config.tree import validate
from singer_ray.errors import UserError
from singer_ray.storage.address import Address, absolute, expanded, is_folder, is_plain, own_name

KEYS = ["students#v2", "try?2", "a%20b", "a b", "ü日", "a+b&c=d", "a//b", "x:y@z", "$1", "[x]*"]


@pytest.mark.parametrize("key", KEYS)
def test_all_of_a_key_belongs_to_it(key: str) -> None:
    found = Address.of(f"s3://bucket/{key}/")
    assert (found.bucket, found.key, found.text, found.folder) == ("bucket", key, f"s3://bucket/{key}", None)
    assert found.name == key.rpartition("/")[2]
    assert expanded(f"s3://bucket/{key}") == f"s3://bucket/{key}"


@pytest.mark.parametrize("key", [key for key in KEYS if "//" not in key])
def test_ray_finds_the_same_key(key: str) -> None:
    uri = Address.of(f"s3://bucket/{key}").uri("http://127.0.0.1:9")
    assert pyarrow.fs.FileSystem.from_uri(f"{uri}&region=us-east-1")[1] == f"bucket/{key}"


@pytest.mark.parametrize("name", ["a#b", "a?b", "a%20b", "a b", "ü", "a:b", "x\ny"])
def test_all_of_a_path_belongs_to_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Address.of(f"{name}/").folder == tmp_path / name
    assert Address.of(f"file://{tmp_path}/{name}").folder == tmp_path / name
    assert Address.of(name).uri() == str(tmp_path / name)
    assert Address.of(name).text == name


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ftp://host", "has the scheme 'ftp'. Allowed: a folder, or s3://BUCKET/PREFIX"),
        ("s3:/bucket/x", "lacks the two slashes"),
        ("s3:///x", "names no bucket"),
        ("s3://b#x/y", "names the bucket 'b#x'"),
        ("s3://b/x/../y", "it has a part '..'"),
        ("s3://b/a\nb", "it holds control characters"),
        ("s3://b/caf\udce9", "it is not in UTF-8"),
        (f"s3://b/{'a/' * 600}", "S3 takes 1,024 bytes"),
        ("file://host/x", "is no absolute path"),
        ("x" * 300, "is 300 bytes long, and 255 is the most"),
        ("caf\udce9", "it is not in UTF-8"),
        ("a\0b", "it holds a null byte"),
    ],
)
def test_what_no_store_could_keep_is_refused(address: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        Address.of(address, "--to")
    assert str(caught.value).startswith("--to ")
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


def test_variables_and_the_home_folder_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("RUNS", "/data/runs")
    told = {
        "~/x": "/home/me/x",
        "$RUNS/x": "/data/runs/x",
        "${RUNS}x": "/data/runsx",
        "s3://b/$RUNS": "s3://b//data/runs",
        "local-dir:~/x": "local-dir:/home/me/x",
        "sqlite:///~/x.db": "sqlite:////home/me/x.db",
        "file://~/x": "file:///home/me/x",
        "a~b": "a~b",
        "s3://b/~x": "s3://b/~x",
        "postgresql://me:pa$RUNS@host/db": "postgresql://me:pa$RUNS@host/db",
        "demo": "demo",
        "hf-hub:me/x": "hf-hub:me/x",
        "x$1$": "x$1$",
    }
    assert {text: expanded(text) for text in told} == told
    faults = {"$GONE/x": r"\$GONE is not", "${GONE}": r"\$GONE is not", "~no-one/x": "no user 'no-one'", "": "empty"}
    for text, said in faults.items():
        with pytest.raises(ValueError, match=said):
            expanded(text)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "we$ird").mkdir()
    assert expanded(f"{tmp_path}/we$ird/x") == f"{tmp_path}/we$ird/x"  # a folder that is called so


def test_every_path_among_the_settings_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "/data")
    folders = [name for name in field_names() if name.startswith(("data.", "evaluation.data."))]
    folders = [name for name in folders if name.endswith(("train", "val", "test", "masks"))]
    assert len(folders) == 12
    others = "teacher.name teacher.checkpoint train.storage export.to search.study search.space search.warm_start"
    settings = [*folders, *others.split()]
    for setting in settings:
        assert Config().override({setting: "$PLACE/x"}).value(setting) == "/data/x"
        with pytest.raises(UserError, match=rf"{setting} is '\$GONE/x'.*\$GONE is not"):
            Config().override({setting: "$GONE/x"})
    again = Config().override(dict.fromkeys(settings, "$PLACE/x"))
    assert validate(again.model_dump(), "x") == again


def test_addresses_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = {
        "x#1": f"{tmp_path}/x#1",
        "/x": "/x",
        "file:///x": "/x",
        "s3://b/x": "s3://b/x",
        "sqlite:///x.db?timeout=3": f"sqlite:///{tmp_path}/x.db?timeout=3",
        "sqlite:////x.db": "sqlite:////x.db",
        "sqlite+pysqlite:///x#.db": f"sqlite+pysqlite:///{tmp_path}/x#.db",
        "sqlite://": "sqlite://",
        "sqlite:///:memory:": "sqlite:///:memory:",
        "mysql://h/db": "mysql://h/db",
        "s3:/bucket": "s3:/bucket",
    }
    assert {text: absolute(text) for text in told} == told
    assert own_name(Path(".")) == own_name(Path("x/..")) == tmp_path.name
    assert own_name(Path("runs/x")) == "x"


@pytest.mark.parametrize("name", ["", ".", "a/../b", "/a", "a//b", "a\\b", "a\nb", "\x1b[2J", "caf\udce9", "x" * 256])
def test_names_that_cannot_be_published(name: str) -> None:
    assert not is_plain(name)


def test_names_that_can_be_published() -> None:
    assert all(map(is_plain, ["a", "pictures/a b.png", "ü日#?%", ".hidden", "a..b"]))


def test_a_folder_is_told_from_a_server() -> None:
    assert all(map(is_folder, ["x", "/x", "a:b", "file:///x", "x/s3://y"]))
    assert not any(map(is_folder, ["s3://b/x", "postgresql://h/d", "http://h"]))
