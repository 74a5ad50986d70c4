"""Validation images that are training images too are found, and others are not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from singer_ray.data import overlap
from singer_ray.data.imagefolder import ImageFolder
from singer_ray.data.overlap import overlap_remark
from singer_ray.data.remarks import data_remarks
from singer_ray.data.scenes import Scenes
from singer_ray.data.source import shuffled_subset
from singer_ray.data.targets import check_targets
from singer_ray.data.wrapped import WrappedDataset
from singer_ray.demo.digits import write_digits


def photograph(seed: int) -> Image.Image:
    """Soft shapes, as a photograph has them."""
    noise = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((128, 96), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Six training images and six others."""
    for split, first in (("train", 0), ("val", 100)):
        (tmp_path / split).mkdir()
        for n in range(6):
            photograph(first + n).save(tmp_path / split / f"{n}.png")
    return tmp_path / "train", tmp_path / "val"


def said(val: Path, train: Path) -> str | None:
    return overlap_remark("validation images", ImageFolder(str(val), "data.val"), ImageFolder(str(train), "data.train"))


def test_other_images_are_no_overlap(folders: tuple[Path, Path]) -> None:
    assert said(folders[1], folders[0]) is None


def test_the_same_folder_is_found_whatever_leads_there(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folders[0])
    for val in (folders[0], tmp_path / "link"):
        assert "6 of 6 compared (with 6 training images) are the same files" in str(said(val, folders[0]))


def test_linked_copied_and_resaved_files_are_found(folders: tuple[Path, Path]) -> None:
    train, val = folders
    (val / "link.png").symlink_to(train / "0.png")
    (val / "hard.png").hardlink_to(train / "1.png")
    shutil.copy(train / "2.png", val / "copy.png")
    with Image.open(train / "3.png") as image:
        image.save(val / "again.jpg", quality=40)
        image.resize((80, 60)).save(val / "small.png")
    remark = str(said(val, train))
    assert "2 of 11 compared (with 6 training images) are the same files" in remark
    assert "1 of 11 compared (with 6 training images) are equal copies, for one 'copy.png' and '2.png'" in remark
    assert "2 of 11 compared (with 6 training images) look the same" in remark


def test_a_large_set_is_compared_in_part(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    look = overlap._opened

    def counted(path: Path) -> Image.Image | None:
        opened.append(path)
        return look(path)

    monkeypatch.setattr(overlap, "_opened", counted)
    for name, value in {"FILES": 3, "AMONG": 4, "LOOKED_AT": 2, "AMONG_LOOKED_AT": 3}.items():
        monkeypatch.setattr(overlap, name, value)
    assert "of 3 compared (with 4 training images) are the same files" in str(said(folders[0], folders[0]))
    assert len(opened) == 5
    monkeypatch.setattr(overlap, "PATIENCE", 0.0)
    opened.clear()
    said(folders[0], folders[0])
    assert len(opened) <= 2


@pytest.mark.slow
def test_different_digits_of_8_pixels_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_digits(tmp_path)
    assert said(tmp_path / "val", tmp_path / "train") is None


def test_images_in_memory_are_compared_by_their_pixels() -> None:
    images = [np.array(photograph(n)) for n in range(8)]
    train, val, other = (WrappedDataset(images[part]) for part in (slice(0, 4), slice(3, 6), slice(6, 8)))
    assert "1 of 3 compared (with 4 training images) are equal copies, for one 'image 0' and 'image 3'" in str(
        overlap_remark("validation images", val, train)
    )
    assert overlap_remark("validation images", other, train) is None


def test_parts_of_one_data_set_are_compared_by_their_places() -> None:
    images: Any = [np.array(photograph(n)) for n in range(6)]

    def part(*places: int) -> WrappedDataset:
        return WrappedDataset(torch.utils.data.Subset(images, places))

    assert "2 of 3 validation images are training images too" in str(
        overlap_remark("validation images", part(2, 3, 4), part(0, 1, 2, 3))
    )
    assert overlap_remark("validation images", part(4, 5), part(0, 1, 2, 3)) is None
    assert "all 4 validation" in str(overlap_remark("validation images", part(0, 1, 2, 3), part(0, 1, 2, 3)))


def test_scenes_are_told_apart_by_split_and_seed() -> None:
    train = Scenes("train", 10, 0)
    assert overlap_remark("validation images", Scenes("val", 10, 0), train) is None
    assert "all 10" in str(overlap_remark("validation images", Scenes("train", 10, 0), train))


def test_the_probes_own_training_images_count_too(folders: tuple[Path, Path]) -> None:
    train, val = (ImageFolder(str(folder), f"data.{folder.name}") for folder in folders)
    probes = {"train": shuffled_subset(val, 3), "val": val, "test": train}
    lines = [line for line in data_remarks(probes, check_targets(probes), train) if line.startswith("all")]
    assert len(lines) == 2
    assert lines[0].startswith("all 6 validation images are training images of the probes too")
    assert lines[1].startswith("all 6 test images are training images too")
