"""Labels and masks are looked at before the first step, and what cannot be measured is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from singer_ray.data.imagefolder import ImageFolder
from singer_ray.data.masks import MaskedFolder
from singer_ray.data.scenes import Scenes
from singer_ray.data.source import shuffled_subset
from singer_ray.data.targets import Targets, check_targets, known_labels
from singer_ray.data.wrapped import WrappedDataset
from singer_ray.errors import UserError
from tests.data.test_imagefolder import Tree


class Counted:
    """A data set that counts how many images were read."""

    def __init__(self, items: list[Any], classes: Any = ("a", "b", "c"), mask_classes: Any = ("x", "y")) -> None:
        self.items, self.classes, self.mask_classes, self.read = items, classes, mask_classes, 0

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        self.read += 1
        return self.items[index]


IMAGE = np.zeros((4, 6, 3), np.uint8)


def labelled(*labels: int, listed: bool = False) -> WrappedDataset:
    dataset = Counted([(IMAGE, label) for label in labels])
    if listed:
        dataset.targets = list(labels)  # type: ignore[attr-defined]
    return WrappedDataset(dataset)


def masked(*values: list[int]) -> WrappedDataset:
    """Masks whose first pixels have these values; the others are 0, or the last value."""
    masks = []
    for each in values:
        mask = np.full((4, 6), each[-1])
        mask[0, : len(each)] = each
        masks.append(mask)
    return WrappedDataset(Counted([{"image": IMAGE, "mask": mask} for mask in masks]))


def look(train: Any, **others: Any) -> Targets:
    return check_targets({"train": train, **others})


@pytest.mark.slow
@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("wrong", [-1, 3])
@pytest.mark.parametrize("split", ["train", "val"])
def test_labels_that_are_no_class_are_refused(split: str, wrong: int, listed: bool) -> None:
    sets = {"train": labelled(0, 1, 2, listed=listed), "val": labelled(0, 1, 2, listed=listed)}
    sets[split] = labelled(0, 1, wrong, listed=listed)
    name = {"train": "training", "val": "validation"}[split]
    with pytest.raises(UserError, match=rf"{name} images: the label of image 2 is {wrong}. Allowed: 0 to 2"):
        check_targets(sets)


def test_listed_labels_are_all_looked_at_without_reading_images() -> None:
    many = labelled(*([0, 1] * 2000), listed=True)
    assert look(many, val=many).unmeasured == {}
    assert many.dataset.read < 20
    assert known_labels(shuffled_subset(many, 10)) is not None


def test_a_list_that_says_otherwise_than_the_samples_is_not_believed() -> None:
    source = labelled(0, 1, 2, listed=True)
    source.dataset.targets = [7, 8, 9]
    assert known_labels(source) is None
    assert look(source).remarks == []


def test_unlisted_labels_are_looked_at_in_some_samples() -> None:
    many = labelled(*([0, 1] * 2000))
    look(many)
    assert many.dataset.read <= 80


def test_one_class_is_not_measured_and_absent_ones_are_named() -> None:
    found = look(labelled(1, 1, 1), val=labelled(0, 1))
    assert found.unmeasured == dict.fromkeys(
        ("val/linear_top1", "val/knn_top1"), "all training images are of one class, 'b'"
    )
    found = look(labelled(0, 1, 2), val=labelled(0, 1), test=labelled(0, 0))
    assert found.unmeasured == {}
    assert found.remarks == [
        "1 of 3 classes do not occur in the validation images (nothing there can be right): 'c'",
        "2 of 3 classes do not occur in the test images (nothing there can be right): 'b', 'c'",
    ]


def test_one_class_folder_is_explained(image_tree: Tree) -> None:
    root = image_tree("train", {"images": 3})
    (remark,) = look(ImageFolder(str(root), "data.train"), val=ImageFolder(str(root), "data.val")).remarks
    assert "all training images are of one class, 'images'" in remark
    assert "FOLDER/images" in remark


def test_a_set_without_labels_is_named() -> None:
    plain = WrappedDataset(Counted([IMAGE, IMAGE]))
    assert set(look(labelled(0, 1), val=plain).unmeasured) == {"val/linear_top1", "val/knn_top1"}
    assert set(look(plain, val=labelled(0, 1)).unmeasured) == {"val/linear_top1", "val/knn_top1"}
    assert look(plain, val=plain).remarks == [
        "not measured: any val/ score, because the validation images have no labels or masks"
    ]


@pytest.mark.parametrize("wrong", [2, 254, -2])
def test_mask_values_that_are_no_class_are_refused(wrong: int) -> None:
    with pytest.raises(UserError, match=rf"mask of image 1 contains the value {wrong}. Allowed: 0 to 1"):
        look(masked([0, 1]), val=masked([0, 1], [0, wrong]))


def test_masks_of_0_and_255_are_told_from_two_classes() -> None:
    found = look(masked([255, 0], [0, 255, 0]), val=masked([255, 0]))
    assert list(found.unmeasured) == ["val/miou"]
    assert "hold one class only, 'x' and the rest unknown: 255 stands for no class" in found.remarks[0]


def test_masks_without_a_known_pixel_are_named() -> None:
    assert look(masked([0, 1]), val=masked([255])).unmeasured == {
        "val/miou": "every pixel of the masks of the validation images is unknown (255)"
    }
    assert look(masked([255]), val=masked([0, 1])).unmeasured == {
        "val/miou": "every pixel of the masks of the training images is unknown (255)"
    }


def test_more_masks_are_read_as_long_as_they_show_one_class() -> None:
    found = look(masked(*[[0]] * 150, [0, 1], *[[0]] * 50), val=masked([0, 1]))
    assert found.unmeasured == {}


def test_masks_and_depth_of_the_wrong_kind_are_refused() -> None:
    source = WrappedDataset(Counted([{"image": IMAGE, "mask": np.zeros((6, 4), int)}]))
    with pytest.raises(UserError, match=r"has the shape \(6, 4\). Give one of its image's height and width, \(4, 6\)"):
        look(source)
    source = WrappedDataset(Counted([{"image": IMAGE, "depth": np.full((4, 6), np.nan)}]))
    with pytest.raises(UserError, match="the depth of image 0 is not finite"):
        look(source)
    source = WrappedDataset(Counted([(IMAGE, 0), IMAGE]))
    with pytest.raises(UserError, match=r"Counted\[1\] has no label, though the first item has"):
        look(source)


def test_masks_of_a_folder_are_read_without_their_images(image_tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    images, masks = image_tree("train", {"": 2}), image_tree("masks", {"": 2})
    for n in range(2):
        Image.new("L", (48, 40), n).save(masks / f"{n}.png")
    (masks / "classes.txt").write_text("ground\nshape\n")
    source = MaskedFolder(ImageFolder(str(images), "data.train"), str(masks), "data.train_masks")
    monkeypatch.setattr(ImageFolder, "image", lambda *_: pytest.fail("an image was read"))
    assert look(shuffled_subset(source, 1), val=source).unmeasured.keys() <= {"val/miou"}
    assert look(source, val=source).unmeasured == {}


def test_built_in_scenes_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scenes, "__getitem__", lambda *_: pytest.fail("a scene was rendered"))
    found = look(shuffled_subset(Scenes("train", 50, 0), 20), val=Scenes("val", 20, 0))
    assert (found.remarks, found.unmeasured) == ([], {})
