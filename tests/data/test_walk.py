"""What of a folder is read, what is left out, and that it is said."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from singer_ray.config import Config
from singer_ray.data.imagefolder import ImageFolder
from singer_ray.data.splits import open_splits
from singer_ray.errors import UserError
from singer_ray.layout import CLASSES

Tree = Callable[..., Path]


def opened(root: Path) -> ImageFolder:
    return ImageFolder(str(root), "data.train")


def test_class_folders_that_are_links_are_followed(image_tree: Tree, tmp_path: Path) -> None:
    root, elsewhere = image_tree("train", {"a": 2}), image_tree("elsewhere", {"b": 3, "c": 1})
    (root / "b").symlink_to(elsewhere / "b")
    (root / "c").mkdir()
    (root / "c" / "linked.png").symlink_to(elsewhere / "c" / "0.png")
    folder = opened(root)
    assert folder.classes == ("a", "b", "c")
    assert [folder.labels.count(n) for n in range(3)] == [2, 3, 1]
    assert folder.remarks == []


def test_links_that_lead_back_end(image_tree: Tree) -> None:
    root = image_tree("train", {"a": 2, "b": 1})
    (root / "a" / "again").symlink_to(root)
    (root / "b" / "self").symlink_to(root / "b")
    folder = opened(root)
    assert len(folder) == 3
    assert "2 links to a folder around them ('a/again')" in folder.remarks[0]


def test_hidden_and_broken_and_other_files_are_left_out_and_named(image_tree: Tree) -> None:
    root = image_tree("train", {"a": 2, "b": 1, ".ipynb_checkpoints": 2})
    (root / "a" / "._0.png").write_bytes(b"what macOS leaves")
    (root / "a" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "b" / "notes.txt").write_text("no image")
    (root / "c").mkdir()
    folder = opened(root)
    assert folder.classes == ("a", "b")
    assert len(folder) == 3
    assert folder.remarks == [
        "data.train: left out 2 hidden ('.ipynb_checkpoints'), 1 broken link ('a/gone.png'), 1 other kind of file "
        "('b/notes.txt'), 1 folder without images ('c')"
    ]


def test_a_folder_of_hidden_folders_says_why_it_holds_nothing(image_tree: Tree) -> None:
    root = image_tree("train", {".a": 2})
    with pytest.raises(UserError, match=r"holds no image \(data.train: left out 1 hidden \('.a'\)\)"):
        opened(root)


def test_a_folder_that_cannot_be_read_is_named(image_tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root, scandir = image_tree("train", {"a": 2, "b": 1}), os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"b' cannot be read \(Permission denied\)"):
        opened(root)


def test_class_names_that_are_no_text_are_escaped(image_tree: Tree, tmp_path: Path) -> None:
    root = image_tree("train", {"a": 1})
    odd = os.fsencode(root) + b"/caf\xe9"
    os.mkdir(odd)
    os.rename(root / "a" / "0.png", odd + b"/\xff.png")
    image_tree("train", {"a": 1})
    folder = opened(root)
    assert folder.classes == ("a", "caf\\xe9")
    assert folder[1]["image"].shape == (3, 40, 48)
    (tmp_path / CLASSES).write_text(json.dumps(folder.classes, ensure_ascii=False), encoding="utf-8")
    assert ImageFolder(str(root), "data.val", folder.classes).labels == [0, 1]


def test_folders_that_no_configuration_can_name_are_refused(tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xe9")
    os.mkdir(odd)
    for setting in ("data.train", "data.val"):
        with pytest.raises(UserError, match=f"{setting} .*is not valid UTF-8"):
            ImageFolder(odd, setting)


def test_masks_follow_the_links_of_their_images(image_tree: Tree, tmp_path: Path) -> None:
    from PIL import Image

    root, elsewhere = image_tree("train", {"a": 1}), image_tree("elsewhere", {"b": 2})
    (root / "b").symlink_to(elsewhere / "b")
    for name in ("a/0.png", "b/0.png", "b/1.png"):
        path = tmp_path / "masks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (48, 40)).save(path)
    (tmp_path / "masks" / "classes.txt").write_text("ground\nshape\n")
    settings = {"data.source": "imagefolder", "data.train": str(root), "data.train_masks": str(tmp_path / "masks")}
    assert len(open_splits(Config().override(settings).data)["train"]) == 3
