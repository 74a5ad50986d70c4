"""One item of a data set of one's own, in any of the shapes that torch, torchvision and Hugging Face give."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from singer_ray.data.source import Sample
from singer_ray.errors import UserError, printable
from singer_ray.images.pixels import UnsupportedPixels, rgb

KEYS = {
    "image": ("image", "img", "pixel_values", "pixels"),
    "label": ("label", "labels", "fine_label", "target", "class"),
    "mask": ("mask", "segmentation_mask", "annotation", "semantic_segmentation"),
    "depth": ("depth", "depth_map"),
}
"""What each field of a sample may be called in a mapping, the first that is there counts."""
_TOLERANCE = 1e-3
_ALLOWED = (
    "Allowed: PIL images; uint8 or floating-point values from 0 to 1, tensors [3, height, width] or arrays "
    "[height, width, 3], greyscale too; leave Normalize out, since teacher and student normalise by themselves."
)


def key_of(item: Mapping[Any, Any], field: str) -> str | None:
    """The key under which a mapping has a field."""
    return next((key for key in KEYS[field] if key in item), None)


def read_item(item: Any) -> Sample:
    """An item as a sample. Raises UserError for what has no agreed meaning.

    An item is an image, (image, label), (image, mask), or a mapping of any of the KEYS. A target with two dimensions,
    or a PIL image, is a mask; a target of None is none.
    """
    fields = _fields(item)
    sample: Sample = {"image": read_image(fields["image"])}
    for name in ("label", "mask"):
        target = fields.get(name)
        if target is None:
            continue
        if _is_plane(target):
            sample["mask"] = _mask(target)
        elif name == "mask":
            raise UserError(f"A mask of the data set is {_kind(target)}. Allowed: whole numbers [height, width].")
        else:
            sample["label"] = _label(target)
    if fields.get("depth") is not None:
        sample["depth"] = _plane(fields["depth"]).float()
    return sample


def _fields(item: Any) -> dict[str, Any]:
    if isinstance(item, Mapping):
        keys = {field: key_of(item, field) for field in KEYS}
        if keys["image"] is None:
            raise UserError(
                f"An item of the data set has {', '.join(map(printable, item)) or 'nothing'} and no image. Name it "
                f"one of: {', '.join(KEYS['image'])}."
            )
        return {field: item[key] for field, key in keys.items() if key is not None}
    if isinstance(item, (tuple, list)):
        if len(item) == 1:
            return {"image": item[0]}
        if len(item) == 2 and isinstance(item[1], Mapping):
            return {**{field: item[1].get(key_of(item[1], field)) for field in KEYS}, "image": item[0]}
        if len(item) == 2:
            return {"image": item[0], "label": item[1]}
        kinds = ", ".join(_kind(part) for part in item[:5])
        raise UserError(
            f"An item of the data set is {len(item)} things ({kinds}). Allowed: an image, (image, label), (image, "
            "mask), or a mapping with image and any of label, mask, depth."
        )
    return {"image": item}


def read_image(image: Any) -> torch.Tensor:
    """uint8 [3, height, width]. Raises UserError for values or shapes whose meaning would be a guess."""
    if isinstance(image, Mapping) and image.get("bytes"):  # of Hugging Face, where decoding is switched off
        image = Image.open(io.BytesIO(image["bytes"]))
    if isinstance(image, Image.Image):
        try:
            eight = rgb(image)
        except UnsupportedPixels as error:
            raise UserError(f"An image of the data set has {error}. Give it as eight-bit RGB.") from error
        return torch.from_numpy(eight).permute(2, 0, 1).contiguous()
    if not isinstance(image, (np.ndarray, torch.Tensor)):
        raise UserError(f"An image of the data set is {_kind(image)}. {_ALLOWED}")
    # Where both ends could be the channels, tensors are taken as torch has them, arrays as everybody else does.
    ends = (0, -1) if isinstance(image, torch.Tensor) else (-1, 0)
    pixels = torch.as_tensor(np.ascontiguousarray(image) if isinstance(image, np.ndarray) else image).detach().cpu()
    if pixels.ndim == 2:
        pixels = pixels[None]
    else:
        end = next((end for end in ends if pixels.ndim == 3 and pixels.shape[end] in (1, 3)), None)
        if end is None:
            raise UserError(f"An image of the data set is {_kind(image)}. {_ALLOWED}")
        pixels = pixels if end == 0 else pixels.permute(2, 0, 1)
    return _eight_bits(pixels, image).expand(3, -1, -1).contiguous()


def is_scaled(item: Any) -> bool:
    """Whether the image of an item has floating-point values, which `read_image` takes as 0 black to 1 white."""
    image = _fields(item)["image"]
    if isinstance(image, torch.Tensor):
        return image.is_floating_point()
    return isinstance(image, np.ndarray) and np.issubdtype(image.dtype, np.floating)


def _eight_bits(pixels: torch.Tensor, given: Any) -> torch.Tensor:
    if pixels.dtype == torch.uint8:
        return pixels
    if pixels.dtype == torch.bool:
        return pixels.to(torch.uint8) * 255
    if not pixels.numel():
        raise UserError(f"An image of the data set is {_kind(given)}: it has no pixels.")
    low, high = float(pixels.min()), float(pixels.max())
    if pixels.is_floating_point():
        if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
            advice = "Leave Normalize out" if not low >= 0 else "Divide by 255, or give uint8"
            raise UserError(
                f"An image of the data set is {_kind(given)} with values from {low:.3g} to {high:.3g}. Allowed: 0 to "
                f"1. {advice}; teacher and student normalise by themselves."
            )
        return (pixels.float().clamp(0, 1) * 255).round().to(torch.uint8)
    if low < 0 or high > 255:
        raise UserError(
            f"An image of the data set is {_kind(given)} with values from {low:g} to {high:g}. Allowed: 0 to 255; "
            "scale it."
        )
    return pixels.to(torch.uint8)


def _label(target: Any) -> int:
    value = np.asarray(target.detach().cpu() if isinstance(target, torch.Tensor) else target)
    number = value.dtype != object and np.issubdtype(value.dtype, np.number) and value.size == 1
    if not number or float(value.reshape(-1)[0]) % 1:
        raise UserError(
            f"A label of the data set is {_kind(target)}. Allowed: one whole number, the class from 0 on; or a mask "
            "[height, width]."
        )
    return int(value.reshape(-1)[0])


def _is_plane(target: Any) -> bool:
    if isinstance(target, Image.Image):
        return True
    return isinstance(target, (np.ndarray, torch.Tensor)) and target.ndim in (2, 3) and max(target.shape) > 1


def _mask(target: Any) -> torch.Tensor:
    plane = _plane(target)
    if plane.is_floating_point():
        raise UserError(
            f"A mask of the data set is {_kind(target)}. Allowed: whole numbers, the class of each pixel; leave "
            "ToTensor out for masks (PILToTensor keeps the numbers)."
        )
    return plane.long()


def _plane(target: Any) -> torch.Tensor:
    values = target.detach().cpu() if isinstance(target, torch.Tensor) else torch.as_tensor(np.array(target))
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[-1]):
        values = values.squeeze(0 if values.shape[0] == 1 else -1)
    if values.ndim != 2:
        raise UserError(f"A mask or depth map of the data set is {_kind(target)}. Allowed: [height, width].")
    return values


def _kind(value: Any) -> str:
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return f"{type(value).__name__} {printable(repr(value), 60)}" if isinstance(value, str) else type(value).__name__
