"""Masks beside a folder of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from singer_ray.config import Config
from singer_ray.data.imagefolder import ImageFolder
from singer_ray.data.loader import training_batches
from singer_ray.data.masks import MaskedFolder
from singer_ray.data.source import Source, shuffled_subset
from singer_ray.data.splits import open_splits
from singer_ray.data.views import EvaluationView, TrainingView
from singer_ray.errors import UserError

Tree = Callable[..., Path]


def write_masks(images: Path, masks: Path, names: str = "ground\nshape\nsky\n", **options: Any) -> Path:
    """A mask for each image: class 1 where the image is brighter on the left half, 255 in the last row."""
    for path in images.rglob("*.png"):
        with Image.open(path) as image:
            values = np.zeros((image.height, image.width), np.uint8)
        values[:, : values.shape[1] // 2] = 1
        values[-1] = 255
        target = masks / path.relative_to(images)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(target)
    (masks / "classes.txt").write_text(names)
    return masks


@pytest.fixture
def folders(image_tree: Tree, tmp_path: Path) -> tuple[Path, Path]:
    images = image_tree("train", {"a": 2, "b": 2})
    return images, write_masks(images, tmp_path / "masks")


def opened(folders: tuple[Path, Path]) -> MaskedFolder:
    return MaskedFolder(ImageFolder(str(folders[0]), "data.train"), str(folders[1]), "data.train_masks")


def test_images_labels_and_masks_come_together(folders: tuple[Path, Path]) -> None:
    source = opened(folders)
    assert isinstance(source, Source)
    assert source.fields == {"label", "mask"}
    assert source.mask_classes == ("ground", "shape", "sky")
    sample = source[3]
    assert sample["label"] == 1
    assert sample["mask"].shape == sample["image"].shape[1:] == (40, 48)
    assert sample["mask"].unique().tolist() == [0, 1, 255]
    assert shuffled_subset(source, 2).mask_classes == source.mask_classes


def test_the_view_cuts_mask_and_image_alike(folders: tuple[Path, Path]) -> None:
    seen = EvaluationView(20, 1.0)(opened(folders)[0])
    assert seen["image"].shape[1:] == seen["mask"].shape == (20, 20)
    # 48 x 40 becomes 24 x 20, of which the middle 20 columns are kept: the border is still in the middle.
    assert seen["mask"][:-1, :10].unique().tolist() == [1]
    assert seen["mask"][:-1, 10:].unique().tolist() == [0]
    assert seen["mask"].unique().tolist() in ([0, 1], [0, 1, 255])  # no value in between


def test_training_views_do_not_read_masks(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    source = opened(folders)
    monkeypatch.setattr(MaskedFolder, "__getitem__", lambda *_: pytest.fail("the mask was read"))
    batches = training_batches(source, TrainingView(16, 1.0, "none", (1.0, 1.0), 0), batch_size=2, seed=0)
    assert torch.is_tensor(next(batches)["image"])


def refused(folders: tuple[Path, Path]) -> str:
    with pytest.raises(UserError) as caught:
        opened(folders)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("data.train_masks")
    return str(caught.value)


def test_a_mask_of_another_size_is_named(folders: tuple[Path, Path]) -> None:
    Image.new("L", (40, 48)).save(folders[1] / "b" / "0.png")
    assert "b/0.png' is 40 x 48 pixels and its image 48 x 40" in refused(folders)


def test_missing_masks_and_names_are_named(folders: tuple[Path, Path]) -> None:
    (folders[1] / "a" / "1.png").unlink()
    assert "a/1.png' is missing, the mask of" in refused(folders)
    (folders[1] / "classes.txt").unlink()
    assert "classes.txt' is missing or empty" in refused(folders)
    assert "does not exist" in refused((folders[0], folders[1] / "gone"))


def test_masks_must_hold_class_numbers(folders: tuple[Path, Path]) -> None:
    (folders[1] / "classes.txt").write_text("ground\n")
    with pytest.raises(UserError, match=r"a/0.png' contains the value 1. Allowed: 0 to 0 .* and 255"):
        opened(folders)[0]
    Image.new("RGB", (48, 40)).save(folders[1] / "a" / "0.png")
    assert "is a RGB image. Allowed: one channel" in refused(folders)
    (folders[1] / "a" / "0.png").write_text("no image")
    assert "cannot be read as a PNG mask" in refused(folders)
    (folders[1] / "classes.txt").write_text("ground\nground\n")
    assert "one twice" in refused(folders)


def test_validation_masks_have_the_classes_of_training(folders: tuple[Path, Path], image_tree: Tree) -> None:
    val = image_tree("val", {"b": 1})
    masks = write_masks(val, folders[1].parent / "val_masks", "other\n")
    settings = {
        "data.source": "imagefolder",
        "data.train": str(folders[0]),
        "data.train_masks": str(folders[1]),
        "data.val_masks": str(masks),
    }
    splits = open_splits(Config().override({**settings, "data.val": str(val)}).data)
    assert splits["val"].mask_classes == ("ground", "shape", "sky")
    assert splits["val"][0]["label"] == 1
    with pytest.raises(UserError, match=r"data.val_masks .* has no images to go with. Give --data.val DIR"):
        open_splits(Config().override(settings).data)
