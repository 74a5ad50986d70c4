"""A map-style data set of one's own as a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from singer_ray.data.pixels import UnsupportedPixels, rgb
from singer_ray.data.source import Sample, Source
from singer_ray.errors import UserError

ANNOTATIONS = ("label", "mask", "depth")


class WrappedDataset:
    """Wraps anything with `len` and `[i]` that yields an image, (image, label), or a mapping with `image` and more.

    Images may be PIL images, uint8 arrays [height, width, 3], or uint8 tensors [3, height, width]; not normalised ones,
    since teacher and student normalise by themselves. Class names come from `classes` or from the data set's own.
    """

    def __init__(
        self, dataset: Any, *, classes: Sequence[str] | None = None, mask_classes: Sequence[str] | None = None
    ) -> None:
        self.dataset = dataset
        first = _sample(dataset[0])
        self.fields = frozenset(name for name in ANNOTATIONS if name in first)
        self.classes = tuple(classes or getattr(dataset, "classes", None) or ())
        self.mask_classes = tuple(mask_classes or getattr(dataset, "mask_classes", None) or ())
        for field, names, argument in (("label", self.classes, "classes"), ("mask", self.mask_classes, "mask_classes")):
            if field in self.fields and not names:
                raise UserError(
                    f"{type(dataset).__name__} has a {field} for each image and does not name its classes. "
                    f"Give it an attribute {argument}: one name for each class index."
                )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        sample = _sample(self.dataset[index])
        missing = sorted(field for field in self.fields if field not in sample)
        if missing:
            raise UserError(
                f"Image {index} of {type(self.dataset).__name__} has no {missing[0]}, though the first one has. Give "
                "every image one, or none."
            )
        return sample


def as_source(dataset: Any) -> Source:
    """`dataset` itself when it is a source, else wrapped. Raises UserError for samples of an unknown kind."""
    return dataset if isinstance(dataset, Source) else WrappedDataset(dataset)


def _sample(item: Any) -> Sample:
    if isinstance(item, Mapping):
        found = dict(item)
    elif isinstance(item, tuple) and len(item) == 2:
        found = {"image": item[0], "label": item[1]}
    else:
        found = {"image": item}
    sample: Sample = {"image": _image(found.get("image"))}
    if "label" in found:
        sample["label"] = int(found["label"])
    if "mask" in found:
        sample["mask"] = torch.as_tensor(np.asarray(found["mask"]))
    if "depth" in found:
        sample["depth"] = torch.as_tensor(np.asarray(found["depth"])).float()
    return sample


def _image(image: Any) -> torch.Tensor:
    if isinstance(image, Image.Image):
        try:
            pixels = rgb(image)
        except UnsupportedPixels as error:
            raise UserError(f"An image of the data set has {error}. Give it as eight-bit RGB.") from error
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        return torch.from_numpy(image).permute(2, 0, 1).contiguous()
    if isinstance(image, torch.Tensor) and image.dtype == torch.uint8 and image.ndim == 3 and image.shape[0] == 3:
        return image
    kind = f"{image.dtype} of shape {tuple(image.shape)}" if hasattr(image, "dtype") else type(image).__name__
    raise UserError(
        f"An image of the data set is {kind}. Allowed: a PIL image, a uint8 array [height, width, 3], or a uint8 "
        "tensor [3, height, width]; leave normalisation and ToTensor out."
    )
