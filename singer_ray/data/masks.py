"""Segmentation masks as PNG files beside a folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from singer_ray.data.imagefolder import ImageFolder
from singer_ray.data.source import Sample
from singer_ray.errors import UserError

CLASSES = "classes.txt"
IGNORED = 255
"""Pixel value that stands for no class."""
_MODES = ("L", "P", "1", "I;16", "I")
_CHECKED_AT_START = 10_000


class MaskedFolder:
    """The images of `images` (and their labels, if any) with masks: image REL/NAME.jpg has the mask REL/NAME.png.

    A mask has one channel (grey or palette) whose values are class numbers, 255 where nothing is known, and the size of
    its image. The class names are the lines of `folder`/classes.txt in the order of the numbers; `mask_classes`
    fixes them instead, usually as those of the training set.

    Raises UserError when the folder, classes.txt or a mask is missing, and for a mask of another size or with
    several channels (checked at the start up to 10,000 files) or with another value (when it is read).
    """

    def __init__(self, images: ImageFolder, folder: str, knob: str, mask_classes: Sequence[str] | None = None) -> None:
        self.images, self.knob, self.root = images, knob, Path(folder)
        if not self.root.is_dir():
            what = "is a file" if self.root.is_file() else "does not exist"
            raise UserError(f"{knob} {folder!r} {what}. Give a folder of PNG masks.")
        self.mask_classes: tuple[str, ...] = tuple(mask_classes or self._read_classes())
        self.fields = images.fields | {"mask"}
        self.classes = images.classes
        self.paths = [self.root / path.relative_to(images.root).with_suffix(".png") for path in images.paths]
        for path, image in zip(self.paths[:_CHECKED_AT_START], images.paths):
            self._check(path, image)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        sample = self.images[index]
        path = self.paths[index]
        self._check(path, self.images.paths[index])
        with Image.open(path) as file:
            try:
                values = np.array(file).astype(np.int64)
            except (OSError, SyntaxError, ValueError) as error:
                raise self._unreadable(path, error) from error
        wrong = values[(values != IGNORED) & ((values < 0) | (values >= len(self.mask_classes)))]
        if wrong.size:
            raise UserError(
                f"{self.knob}: {str(path)!r} contains the value {wrong[0]}. Allowed: 0 to {len(self.mask_classes) - 1} "
                f"({CLASSES} names {len(self.mask_classes)} classes) and {IGNORED} for unknown."
            )
        sample["mask"] = torch.from_numpy(values)
        return sample

    def image(self, index: int) -> torch.Tensor:
        """The image alone: its mask is not read."""
        return self.images.image(index)

    def _read_classes(self) -> list[str]:
        path = self.root / CLASSES
        try:
            names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError):
            names = []
        if not names or len(names) > IGNORED or len(set(names)) < len(names):
            fault = f"names {len(names)} classes, or one twice" if names else "is missing or empty"
            raise UserError(
                f"{self.knob}: {str(path)!r} {fault}. Give it one line for each mask value from 0 on: the name of the "
                f"class, each once, at most {IGNORED}."
            )
        return names

    def _check(self, path: Path, image: Path) -> None:
        if not path.is_file():
            raise UserError(f"{self.knob}: {str(path)!r} is missing, the mask of {str(image)!r}. Give each image one.")
        try:
            with Image.open(path) as mask, Image.open(image) as picture:
                sizes, mode = (mask.size, picture.size), mask.mode
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise self._unreadable(path, error) from error
        if mode not in _MODES:
            raise UserError(
                f"{self.knob}: {str(path)!r} is a {mode} image. Allowed: one channel, whose values are class numbers."
            )
        if sizes[0] != sizes[1]:
            shown = [f"{width} x {height}" for width, height in sizes]
            raise UserError(
                f"{self.knob}: {str(path)!r} is {shown[0]} pixels and its image {shown[1]}. Give masks of their "
                "image's size."
            )

    def _unreadable(self, path: Path, error: Exception) -> UserError:
        return UserError(f"{self.knob}: {str(path)!r} cannot be read as a PNG mask ({error}). Replace it.")
