"""What is read and written beside strangers: limits of JSON and YAML, drafts that follow no link, secrets apart."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from singer_ray.errors import UserError
from singer_ray.storage import (
    lacks_password,
    read_json,
    read_yaml,
    with_password,
    without_credentials,
    without_password,
    write_whole,
)
from singer_ray.storage.outside import DEEPEST


def test_plain_files_are_read_as_they_are() -> None:
    tree = {"a": [1, 2.5, None, True, "x"], "b": {"c": [[]]}}
    assert read_json(json.dumps(tree), "x") == tree
    assert read_yaml("a: &one [1, 2]\nb: *one\nc: [*one, *one]\n", "x") == {
        "a": [1, 2],
        "b": [1, 2],
        "c": [[1, 2], [1, 2]],
    }
    assert read_yaml("", "x") is None
    assert read_json("[" * DEEPEST + "]" * DEEPEST, "x")
    assert read_yaml("[" * (DEEPEST - 1) + "]" * (DEEPEST - 1), "x")


@pytest.mark.parametrize("text", ["[" * 51 + "]" * 51, "[" * 900 + "]" * 900, "[" * 100_000, "9" * 5000, "\udcff", "{"])
def test_spoilt_json_is_one_line(text: str) -> None:
    with pytest.raises(UserError) as caught:
        read_json(text.encode("utf-8", "surrogateescape"), "place \x1b[2J")
    assert str(caught.value).startswith("place \\x1b[2J ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


# --- drafts


def test_a_file_takes_the_place_of_a_link(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("years of work")
    for name in ("report.html", "report.html.part", ".report.html.part"):
        (tmp_path / name).symlink_to(mine)
    write_whole(tmp_path / "report.html", "new", synced=True)
    assert mine.read_text() == "years of work"
    assert (tmp_path / "report.html").read_text() == "new"
    assert not (tmp_path / "report.html").is_symlink()
    assert len(list(tmp_path.iterdir())) == 4


def test_a_file_that_cannot_be_written_leaves_the_earlier_one_and_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_whole(tmp_path / "x", "earlier")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "x", "later", synced=True)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "earlier"


# --- secrets


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("postgresql://me:pa:s@s@db:5432/x", "postgresql://me@db:5432/x"),
        (
            "postgresql+psycopg2://me:p@db/x?sslmode=require&sslpassword=q",
            "postgresql+psycopg2://me@db/x?sslmode=require",
        ),
        ("mysql://me@db/x?password=q", "mysql://me@db/x"),
        ("postgresql:///x?host=db&passfile=/f&password=q", "postgresql:///x?host=db&passfile=%2Ff"),
        ("http://key:secret@127.0.0.1:9000", "http://key@127.0.0.1:9000"),
        ("https://host/x?access_token=q&sig=z", "https://host/x"),
        ("sqlite:////a b/c:d@e.db", "sqlite:////a b/c:d@e.db"),
        ("s3://bucket/a#b?c", "s3://bucket/a#b?c"),
        ("runs/x", "runs/x"),
    ],
)
def test_what_is_written_has_no_password(address: str, kept: str) -> None:
    assert without_password(address) == kept
    assert without_password(kept) == kept


def test_a_password_comes_back_for_its_own_place_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SINGER_RAY_STUDY_URL", raising=False)
    kept = "postgresql://me@db/x"
    assert lacks_password(kept)
    assert not lacks_password("postgresql://me:s@db/x")
    assert not lacks_password("sqlite:////x.db")
    whole = "postgresql+psycopg2://other:s@DB/x?sslpassword=q"
    monkeypatch.setenv("SINGER_RAY_STUDY_URL", whole)
    assert with_password(kept) == whole
    assert with_password("postgresql://me:mine@db/x") == "postgresql://me:mine@db/x"
    for stranger in ("postgresql://me@evil/x", "postgresql://me@db/y", "mysql://me@db/x", "sqlite:////x.db"):
        assert with_password(stranger) == stranger


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("db://h/x?sslpassword=q&a=b", "db://h/x?sslpassword=***&a=b"),
        ("https://h?access_token=q", "https://h?access_token=***"),
        ("https://h?a=b&auth=q&sas=r", "https://h?a=b&auth=***&sas=***"),
        ("host=db user=me password=se'cret sslmode=on", "host=db user=me password=*** sslmode=on"),
        ("host=db passwd='two words' x=1", "host=db passwd=*** x=1"),
        ("AccountKey=abc; sas_token = xyz", "AccountKey=***; sas_token = ***"),
        ("keys=3 tokens=16 author=me", "keys=3 tokens=16 author=me"),
    ],
)
def test_shown_texts_lose_their_secrets(text: str, shown: str) -> None:
    assert without_credentials(text) == shown
