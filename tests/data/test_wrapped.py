"""Data sets of one's own, as torch, torchvision and Hugging Face users have them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, Subset, TensorDataset
from torchvision.datasets import FakeData, ImageFolder
from torchvision.transforms import v2

from singer_ray.data import wrapped
from singer_ray.data.items import read_image
from singer_ray.data.wrapped import WrappedDataset, as_source, as_sources
from singer_ray.errors import UserError

RAMP = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3
"""An image whose pixels are all different: [height 4, width 6, 3]."""
CHW = torch.from_numpy(RAMP).permute(2, 0, 1)
GREY = CHW[:1].expand(3, -1, -1)


def labels_of(dataset: Any) -> list[int]:
    found = wrapped.labels_of(dataset)
    assert found is not None
    return [int(label) for label in found]


class Faces:
    """A data set of Hugging Face's kind: mappings, with features that name classes and columns by name."""

    def __init__(self, image: str = "img", label: str = "fine_label") -> None:
        self.keys = (image, label)
        self.features = {image: SimpleNamespace(), label: SimpleNamespace(names=["cat", "dog"])}

    def __len__(self) -> int:
        return 4

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return [i % 2 for i in range(4)]
        return {self.keys[0]: Image.fromarray(RAMP), self.keys[1]: key % 2}


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(RAMP), CHW),
        (RAMP, CHW),
        (CHW, CHW),
        (CHW.float() / 255, CHW),
        (CHW.double() / 255, CHW),
        ((CHW.float() / 255).half(), CHW),
        (RAMP.astype(np.float32) / 255, CHW),
        (CHW.long(), CHW),
        (torch.from_numpy(RAMP), CHW),  # [height, width, 3] can be nothing else here
        (CHW.numpy(), CHW),
        (RAMP[:, :, 0], GREY),
        (RAMP[:, :, :1], GREY),
        (CHW[:1], GREY),
        (CHW[0].float() / 255, GREY),
        (Image.fromarray(RAMP[:, :, 0]), GREY),
    ],
    ids=lambda given: str(getattr(given, "dtype", "PIL")),
)
def test_images_of_every_kind_become_the_same_eight_bits(image: Any, expected: torch.Tensor) -> None:
    read = read_image(image)
    assert read.dtype == torch.uint8
    assert torch.equal(read, expected)


def test_an_image_of_bytes_is_decoded() -> None:
    file = io.BytesIO()
    Image.fromarray(RAMP).save(file, "png")
    assert torch.equal(read_image({"bytes": file.getvalue(), "path": None}), CHW)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (v2.functional.normalize(CHW.float() / 255, [0.5] * 3, [0.5] * 3), "values from -1 .*Leave Normalize out"),
        (CHW.float(), "values from 0 to 213.*Divide by 255"),
        (torch.full((3, 4, 4), torch.nan), "Allowed: 0 to 1"),
        (CHW.int() * 300, "Allowed: 0 to 255"),
        (torch.zeros(5, 4, 4), r"float32 of shape \(5, 4, 4\)"),
        (torch.zeros(2, 3, 4, 4), r"shape \(2, 3, 4, 4\)"),
        ("image.png", "is str 'image.png'"),
        ({"photo": RAMP}, "has photo and no image"),
        ((RAMP, 0, 1), "is 3 things"),
        ((RAMP, "cat"), "A label of the data set is str"),
        ((RAMP, 0.5), "A label of the data set is float"),
        ((RAMP, torch.rand(4)), "Allowed: one whole number"),
        ((RAMP, torch.rand(4, 6)), "leave ToTensor out for masks"),
        ((RAMP, np.zeros((4, 6, 3), int)), r"Allowed: \[height, width\]"),
    ],
)
def test_what_has_no_agreed_meaning_is_refused_with_advice(item: Any, said: str) -> None:
    with pytest.raises(UserError, match=rf"list\[0\]: .*{said}") as caught:
        as_source([item])
    assert "\n" not in str(caught.value)


def test_floating_point_images_are_taken_as_black_to_white_and_that_is_said() -> None:
    source = as_source(TensorDataset(CHW[None].float() / 255, torch.tensor([0])))
    assert torch.equal(source[0]["image"], CHW)
    assert isinstance(source, WrappedDataset)
    assert source.remarks[0] == "TensorDataset: images have floating-point values, taken as 0 (black) to 1 (white)"


def test_classes_without_names_get_their_numbers_in_all_sets_alike() -> None:
    class Pairs:
        def __init__(self, labels: list[int]) -> None:
            self.pairs = [(RAMP, label) for label in labels]

        def __len__(self) -> int:
            return len(self.pairs)

        def __getitem__(self, index: int) -> Any:
            return self.pairs[index]

    sources = as_sources({"train": Pairs([0, 2, 1]), "validation": Pairs([0, 3])}, "data")
    assert list(sources) == ["train", "val"]
    assert [tuple(s.classes) for s in sources.values()] == [("0", "1", "2", "3")] * 2
    [said] = getattr(sources["train"], "remarks", [])
    assert said.startswith("Pairs: label classes are named 0 to 3, by the largest label of 3 items")
    many = as_source(Pairs([0] * 5000 + [7]))  # of many, some are looked at: both ends, and between
    assert len(many.classes) == 8
    assert "largest label of 500 items" in getattr(many, "remarks", [""])[0]


def test_classes_that_only_the_training_images_name_are_those_of_all() -> None:
    sources = as_sources({"train": Faces(), "val": TensorDataset(CHW[None], torch.tensor([1]))}, "data")
    assert tuple(sources["val"].classes) == ("cat", "dog")
    assert getattr(sources["val"], "remarks", None) == []


def test_torchvision_data_sets(image_tree: Any) -> None:
    fake = FakeData(6, (3, 8, 8), 3, transform=v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]))
    source = as_source(fake)
    assert source.fields == {"label"}
    assert source[0]["image"].shape == (3, 8, 8)
    folder = ImageFolder(str(image_tree("tv", {"a": 2, "b": 3})))
    assert tuple(as_source(folder).classes) == ("a", "b")
    part: Any = Subset(folder, [4, 0, 1])
    more: Any = ConcatDataset([folder, folder])
    assert tuple(as_source(part).classes) == tuple(as_source(more).classes) == ("a", "b")
    assert [labels_of(part), labels_of(more)] == [[1, 0, 0], [0, 0, 1, 1, 1] * 2]


def test_images_with_a_mask_as_segmentation_sets_give_them() -> None:
    mask = np.zeros((4, 6), np.uint8)
    mask[0], mask[1] = 4, 255
    source = as_source([(Image.fromarray(RAMP), Image.fromarray(mask))])
    assert source.fields == {"mask"}
    assert source[0]["mask"].dtype == torch.int64
    assert len(source.mask_classes) == 5
    assert as_source([(CHW, torch.from_numpy(mask)[None])])[0]["mask"].shape == (4, 6)
    assert as_source([{"pixel_values": RAMP, "label": Image.fromarray(mask)}]).fields == {"mask"}


@pytest.mark.parametrize("names", [("img", "fine_label"), ("image", "labels"), ("image", "label")])
def test_hugging_face_data_sets(names: tuple[str, str]) -> None:
    source = as_source(Faces(*names))
    assert source.fields == {"label"}
    assert tuple(source.classes) == ("cat", "dog")
    assert source[1]["label"] == 1
    assert labels_of(Faces(*names)) == [0, 1, 0, 1]


def test_sets_under_wrong_names_or_of_another_kind_are_refused() -> None:
    class Endless(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            yield RAMP

    good = [RAMP]
    wrong: list[tuple[Any, str]] = [
        ({"trian": good}, "data has a set 'trian'. Allowed: train, val and test"),
        ({"val": good}, "data has val. It needs a data set under 'train'"),
        ({"train": good, "val": good, "validation": good}, "data has val twice"),
        ({"train": []}, r"data\['train'\]: list is empty"),
        ({"train": Endless()}, "Endless cannot be indexed|Endless has no length"),
        ({"train": DataLoader(TensorDataset(CHW[None]))}, "Give the data set that it reads: its attribute dataset"),
        ({"train": good, "val": [(RAMP, "x")]}, r"data\['val'\]: list\[0\]: A label"),
    ]
    for sets, said in wrong:
        with pytest.raises(UserError, match=said):
            as_sources(sets, "data")
    assert isinstance(as_sources(good, "data"), Mapping)  # one data set alone is the training set
