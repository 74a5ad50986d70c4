"""Folders of image files."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from singer_ray.data.source import Sample
from singer_ray.errors import UserError
from singer_ray.storage.address import is_folder, split

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff", ".gif"})
_CHECKED_AT_START = 10_000


class ImageFolder:
    """Every image below `folder`, in the order of the paths.

    With class folders (`folder/CLASS/...`) the samples have labels; images straight in `folder` have none.
    `classes` fixes the order of the classes, usually that of the training set. Other files are passed over.

    Raises UserError when there is no such folder, no image in it, both kinds mixed, a class that `classes` lacks,
    or a file that has an image's name and is none (checked at the start up to 10,000 files, else when it is read).
    """

    mask_classes: Sequence[str] = ()

    def __init__(self, folder: str, knob: str, classes: Sequence[str] | None = None) -> None:
        self.root = root = Path(split(folder)[1])
        if not is_folder(folder):
            raise UserError(
                f"{knob} {folder!r} is an address. Allowed: a local folder; copy or mount the images first."
            )
        if not root.is_dir():
            what = "is a file" if root.is_file() else "does not exist"
            raise UserError(f"{knob} {folder!r} {what}. Give a folder of images, or of one folder a class.")
        self.paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
        if not self.paths:
            raise UserError(f"{knob} {folder!r} holds no image. Allowed: {' '.join(sorted(EXTENSIONS))} files.")
        names = [p.relative_to(root).parts[0] if p.parent != root else "" for p in self.paths]
        found = sorted(set(names))
        if "" in found and len(found) > 1:
            raise UserError(
                f"{knob} {folder!r} has images both beside and inside its class folders, for one "
                f"{self.paths[names.index('')].name}. Move all into class folders, or all out of them."
            )
        labelled = found != [""]
        self.classes: tuple[str, ...] = tuple(classes or found) if labelled else ()
        unknown = sorted(set(found) - set(self.classes)) if labelled else []
        if unknown:
            raise UserError(
                f"{knob} {folder!r} has the class {unknown[0]!r}, which the training images lack. "
                f"Allowed: {', '.join(self.classes[:20])}."
            )
        self.fields = frozenset({"label"}) if labelled else frozenset()
        number = {name: i for i, name in enumerate(self.classes)}
        self.labels = [number[name] for name in names] if labelled else []
        for path in self.paths[:_CHECKED_AT_START]:
            _open(path).close()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        sample: Sample = {"image": self.image(index)}
        if self.labels:
            sample["label"] = self.labels[index]
        return sample

    def image(self, index: int) -> torch.Tensor:
        """The pixels alone: uint8 [3, height, width]."""
        path = self.paths[index]
        with _open(path) as image:
            try:
                pixels = np.array(image.convert("RGB"))
            except (OSError, SyntaxError, ValueError) as error:
                raise _no_image(path, error) from error
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _open(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(path)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise _no_image(path, error) from error


def _no_image(path: Path, error: Exception) -> UserError:
    reason = "unknown format or empty" if isinstance(error, UnidentifiedImageError) else str(error)
    return UserError(
        f"{str(path)!r} is named like an image but cannot be read as one ({reason}). Replace or remove it."
    )
