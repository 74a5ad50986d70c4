"""Segmentation masks as PNG files beside a folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from singer_ray.data.imagefolder import ImageFolder, checked_folder
from singer_ray.data.source import Sample, remarks_of
from singer_ray.errors import UserError
from singer_ray.images.pixels import open_image, orientation, reason, size_of

CLASSES = "classes.txt"
IGNORED = 255
"""Pixel value that stands for no class."""
_MODES = ("L", "P", "1", "I;16", "I")
_CHECKED_AT_START = 10_000


class MaskedFolder:
    """The images of `images` (and their labels, if any) with masks: image REL/NAME.jpg has the mask REL/NAME.png.

    A mask has one channel (grey or palette) whose values are class numbers, 255 where nothing is known, and the size of
    its image as that is read: masks are never turned, so they belong to the stored image, or with `images.upright` to
    the upright one. The class names are the lines of `folder`/classes.txt in the order of the numbers; `mask_classes`
    fixes them instead, usually as those of the training set.

    Raises UserError when the folder, classes.txt or a mask is missing, and for a mask of another size or with
    several channels (checked at the start up to 10,000 files) or with another value (when it is read).
    """

    def __init__(
        self, images: ImageFolder, folder: str, setting: str, mask_classes: Sequence[str] | None = None
    ) -> None:
        self.images, self.setting = images, setting
        self.root = checked_folder(folder, setting, "Give a folder of PNG masks.")
        self.mask_classes: tuple[str, ...] = tuple(mask_classes or self._read_classes())
        self.fields = images.fields | {"mask"}
        self.classes, self.remarks = images.classes, remarks_of(images)
        self.paths = [self.root / path.relative_to(images.root).with_suffix(".png") for path in images.paths]
        for path, image in zip(self.paths[:_CHECKED_AT_START], images.paths):
            self._check(path, image)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        sample = self.images[index]
        sample["mask"] = self.mask(index)
        return sample

    def mask(self, index: int) -> torch.Tensor:
        """The mask alone: int64 [height, width]."""
        path = self.paths[index]
        self._check(path, self.images.paths[index])
        try:
            with Image.open(path) as file:
                values = np.array(file).astype(np.int64)
        except Exception as error:  # each format has exceptions of its own
            raise self._unreadable(path, error) from error
        wrong = values[(values != IGNORED) & ((values < 0) | (values >= len(self.mask_classes)))]
        if wrong.size:
            raise UserError(
                f"{self.setting}: {str(path)!r} contains the value {wrong[0]}. Allowed: 0 to "
                f"{len(self.mask_classes) - 1} "
                f"({CLASSES} names {len(self.mask_classes)} classes) and {IGNORED} for unknown."
            )
        return torch.from_numpy(values)

    def image(self, index: int) -> torch.Tensor:
        """The image alone: its mask is not read."""
        return self.images.image(index)

    def _read_classes(self) -> list[str]:
        path = self.root / CLASSES
        try:
            names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self.setting}: {str(path)!r} is not UTF-8 text ({error}). Change its encoding."
            ) from error
        except OSError:
            names = []
        if not names or len(names) > IGNORED or len(set(names)) < len(names):
            problem = f"names {len(names)} classes, or one twice" if names else "is missing or empty"
            raise UserError(
                f"{self.setting}: {str(path)!r} {problem}. Give it one line for each mask value from 0 on: the name of "
                "the "
                f"class, each once, at most {IGNORED}."
            )
        return names

    def _check(self, path: Path, image: Path) -> None:
        if not path.is_file():
            raise UserError(
                f"{self.setting}: {str(path)!r} is missing, the mask of {str(image)!r}. Give each image one."
            )
        try:
            with Image.open(path) as mask:
                size, mode = mask.size, mask.mode
        except Exception as error:
            raise self._unreadable(path, error) from error
        with open_image(image) as picture:
            sizes, turned = (size, size_of(picture, upright=self.images.upright)), orientation(picture)
        if mode not in _MODES:
            raise UserError(
                f"{self.setting}: {str(path)!r} is a {mode} image. Allowed: one channel, whose values are class "
                "numbers."
            )
        if sizes[0] != sizes[1]:
            shown = [f"{width} x {height}" for width, height in sizes]
            exif = f" (its EXIF orientation {turned} is {'applied' if self.images.upright else 'ignored'})"
            raise UserError(
                f"{self.setting}: {str(path)!r} is {shown[0]} pixels and its image {shown[1]}{exif if turned else ''}. "
                "Give masks of their image's size."
            )

    def _unreadable(self, path: Path, error: Exception) -> UserError:
        return UserError(f"{self.setting}: {str(path)!r} cannot be read as a PNG mask ({reason(error)}). Replace it.")
