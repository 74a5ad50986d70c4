"""A folder of somebody else's: links that lead out of it, names that do, and what is no file."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from singer_ray.errors import UserError
from singer_ray.storage import Folder
from singer_ray.storage.reading import opened


@pytest.fixture
def theirs(tmp_path: Path) -> Folder:
    """A folder with links to a file of mine, to a folder of mine, and within itself."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "key").write_text("secret")
    root = tmp_path / "theirs"
    (root / "best" / "1-002").mkdir(parents=True)
    (root / "best" / "1-002" / "x").write_text("theirs")
    (root / "key").symlink_to(tmp_path / "mine" / "key")
    (root / "folder").symlink_to(tmp_path / "mine")
    (root / "best" / "2-003").symlink_to(tmp_path / "mine")
    (root / "within").symlink_to("best/1-002/x")
    os.mkfifo(root / "pipe")
    return Folder(str(root))


@pytest.mark.parametrize(
    "act",
    [
        lambda f, p: f.read("key"),
        lambda f, p: f.digest("key"),
        lambda f, p: f.fetch("key", p / "copy"),
        lambda f, p: f.read("folder/key"),
        lambda f, p: f.names("folder"),
        lambda f, p: f.folders("folder"),
        lambda f, p: f.write("folder/new", b""),
        lambda f, p: f.below("best/2-003").names(),
        lambda f, p: f.below("best/2-003").read("key"),
    ],
)
def test_links_that_lead_out_are_refused(theirs: Folder, tmp_path: Path, act: Callable[[Folder, Path], Any]) -> None:
    with pytest.raises(UserError, match=r"leads out of .*by a link to .*mine"):
        act(theirs, tmp_path)
    assert not (tmp_path / "mine" / "new").exists()


def test_links_within_are_followed(theirs: Folder) -> None:
    assert theirs.read("within") == b"theirs"
    assert theirs.below("best").below("1-002").read("x") == b"theirs"


def test_a_link_to_the_folder_itself_is_the_users_own(theirs: Folder, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    assert Folder(str(tmp_path / "link")).read("best/1-002/x") == b"theirs"


@pytest.mark.parametrize("name", ["../mine/key", "best/../../mine/key", "/etc/passwd", "", "a//b", "a/./b", "a\0b"])
def test_names_that_lead_out_are_refused(theirs: Folder, name: str) -> None:
    for act in (theirs.read, theirs.digest, theirs.below, theirs.delete, lambda n: theirs.write(n, b"")):
        with pytest.raises(UserError, match="would lead out of it"):
            act(name)


@pytest.mark.parametrize("name", ["pipe", "device"])
def test_pipes_and_devices_are_never_waited_for(theirs: Folder, tmp_path: Path, name: str) -> None:
    (tmp_path / "theirs" / "device").symlink_to("/dev/zero")
    said: list[str] = []

    def read() -> None:
        for act in (lambda: opened(tmp_path / "theirs" / name), lambda: theirs.read(name), lambda: theirs.digest(name)):
            try:
                act()
            except UserError as error:
                said.append(str(error))

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    reading.join(10)
    assert not reading.is_alive()
    assert "is not a regular file" in said[0]
    assert len(said) == 3
