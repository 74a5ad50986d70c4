"""Images of one's own: folders of files, and data sets from Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from singer_ray.data.imagefolder import ImageFolder
from singer_ray.data.source import Source
from singer_ray.data.wrapped import as_source
from singer_ray.demo.digits import write_digits
from singer_ray.errors import UserError

Tree = Callable[..., Path]


def test_class_folders_give_labels(image_tree: Tree) -> None:
    folder = ImageFolder(str(image_tree("train", {"dog": 2, "cat": 3})), "data.train")
    assert isinstance(folder, Source)
    assert folder.classes == ("cat", "dog")
    assert [folder[i]["label"] for i in range(5)] == [0, 0, 0, 1, 1]
    assert folder[0]["image"].shape == (3, 40, 48)
    assert folder[0]["image"].dtype == torch.uint8


def test_images_without_class_folders_have_no_labels(image_tree: Tree) -> None:
    folder = ImageFolder(str(image_tree("train", {"": 4})), "data.train")
    assert len(folder) == 4
    assert folder.fields == frozenset()
    assert "label" not in folder[0]


def test_class_numbers_follow_the_training_set(image_tree: Tree) -> None:
    train = ImageFolder(str(image_tree("train", {"a": 1, "b": 1, "c": 1})), "data.train")
    val = ImageFolder(str(image_tree("val", {"c": 2})), "data.val", train.classes)
    assert val[0]["label"] == 2


def test_grey_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(tmp_path / "grey.png")
    Image.new("RGBA", (8, 8), (1, 2, 3, 100)).save(tmp_path / "transparent.png")
    (tmp_path / "notes.txt").write_text("passed over")
    folder = ImageFolder(str(tmp_path), "data.train")
    assert [folder[i]["image"][:, 0, 0].tolist() for i in range(2)] == [[7, 7, 7], [1, 2, 3]]


def refused(*arguments: Any) -> str:
    with pytest.raises(UserError) as caught:
        ImageFolder(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_folders_are_named(image_tree: Tree, tmp_path: Path) -> None:
    assert "does not exist" in refused(str(tmp_path / "none"), "data.train")
    (tmp_path / "empty").mkdir()
    assert "holds no image" in refused(str(tmp_path / "empty"), "data.val")
    (tmp_path / "file").write_text("x")
    assert "is a file" in refused(str(tmp_path / "file"), "data.train")
    assert "is an address" in refused("s3://bucket/images", "data.train")
    mixed = image_tree("mixed", {"": 1, "a": 1})
    assert "both beside and inside" in refused(str(mixed), "data.train")
    other = image_tree("other", {"zebra": 1})
    assert "class 'zebra', which the training images lack" in refused(str(other), "data.val", ("a", "b"))


def test_a_file_that_is_no_image_is_named_at_the_start(image_tree: Tree) -> None:
    tree = image_tree("train", {"a": 2})
    (tree / "a" / "broken.png").write_bytes(b"not a png")
    message = refused(str(tree), "data.train")
    assert "broken.png' is named like an image" in message
    assert "Replace or remove it" in message


def test_a_truncated_image_is_named_when_it_is_read(image_tree: Tree) -> None:
    tree = image_tree("train", {"a": 1})
    path = tree / "a" / "0.png"
    path.write_bytes(path.read_bytes()[:400])
    folder = ImageFolder(str(tree), "data.train")
    with pytest.raises(UserError, match=r"0.png' is named like an image"):
        folder[0]


def test_digits_are_written_by_split_and_class(tmp_path: Path) -> None:
    counts = write_digits(tmp_path)
    assert sum(counts.values()) == 1797
    train = ImageFolder(str(tmp_path / "train"), "data.train")
    assert train.classes == tuple("0123456789")
    names = [{p.name for p in (tmp_path / split).rglob("*.png")} for split in counts]
    assert not names[0] & names[1]
    assert not (names[0] | names[1]) & names[2]


class Pairs:
    classes = ("a", "b")

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (6, 4), (index, 0, 0)), index


def test_a_data_set_of_pairs_becomes_a_source() -> None:
    source = as_source(Pairs())
    assert source.fields == {"label"}
    assert source[1]["label"] == 1
    assert source[1]["image"].shape == (3, 4, 6)


def test_mappings_keep_their_annotations() -> None:
    item = {"image": np.zeros((4, 6, 3), np.uint8), "depth": np.ones((4, 6))}
    source = as_source([item, item])
    assert source.fields == {"depth"}
    assert source[0]["depth"].dtype == torch.float32
