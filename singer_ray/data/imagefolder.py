"""Folders of image files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from singer_ray.data.source import Sample, evenly
from singer_ray.errors import UserError, printable
from singer_ray.images.pixels import open_image, orientation, read_rgb
from singer_ray.images.walk import EXTENSIONS, walk
from singer_ray.storage.address import is_folder, split

_CHECKED_AT_START = 10_000
_LOOKED_AT = 1000
"""Images whose kind of pixels and orientation are looked at, spread over the folder."""
_DEEP = ("I", "F")


class ImageFolder:
    """Every image below `folder`, in the order of the paths.

    With class folders (`folder/CLASS/...`) the samples have labels; images straight in `folder` have none.
    `classes` fixes the order of the classes, usually that of the training set. Links are followed. Hidden files and
    folders, broken links and other files are left out; `remarks` names them, and what is special about the pixels.
    Class names that are not UTF-8 have their odd bytes escaped (`caf\\xe9`). `upright` turns each image as its EXIF
    orientation says; without it images are read as they are stored.

    Raises UserError when there is no such folder, no image in it, a folder in it that cannot be read, both kinds mixed,
    a class that `classes` lacks, or a file that has an image's name and is none (checked at the start up to 10,000
    files, else when it is read).
    """

    mask_classes: Sequence[str] = ()

    def __init__(
        self, folder: str, setting: str, classes: Sequence[str] | None = None, *, upright: bool = False
    ) -> None:
        self.root = root = checked_folder(folder, setting, "Give a folder of images, or of one folder per class.")
        self.setting, self.upright = setting, upright
        walked = walk(root, setting)
        self.paths = walked.paths
        if not self.paths:
            left = walked.remark(setting)
            raise UserError(
                f"{setting} {folder!r} holds no image{f' ({left})' if left else ''}. Allowed: "
                f"{' '.join(sorted(EXTENSIONS))} files."
            )
        names = [_class_of(p, root) for p in self.paths]
        present = sorted(set(names))
        if "" in present and len(present) > 1:
            raise UserError(
                f"{setting} {folder!r} has images both beside and inside its class folders, for one "
                f"{printable(self.paths[names.index('')].name)}. Move all into class folders, or all out of them."
            )
        labelled = present != [""]
        self.classes: tuple[str, ...] = tuple(classes or present) if labelled else ()
        unknown = sorted(set(present) - set(self.classes)) if labelled else []
        if unknown:
            raise UserError(
                f"{setting} {folder!r} has the class {unknown[0]!r}, which the training images lack. "
                f"Allowed: {', '.join(map(printable, self.classes[:20]))}."
            )
        self.fields = frozenset({"label"}) if labelled else frozenset()
        number = {name: i for i, name in enumerate(self.classes)}
        self.labels = [number[name] for name in names] if labelled else []
        for path in self.paths[:_CHECKED_AT_START]:
            open_image(path).close()
        left_out = walked.remark(setting)
        self.remarks = [*([left_out] if left_out else []), *self._about_pixels()]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        sample: Sample = {"image": self.image(index)}
        if self.labels:
            sample["label"] = self.labels[index]
        return sample

    def image(self, index: int) -> torch.Tensor:
        """The pixels alone: uint8 [3, height, width]."""
        pixels = read_rgb(self.paths[index], upright=self.upright)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    def _about_pixels(self) -> list[str]:
        turned, deep, clear = [], [], []
        looked = evenly(self.paths, _LOOKED_AT)
        for path in looked:
            with open_image(path) as image:
                if orientation(image) is not None:
                    turned.append(path)
                if image.mode.startswith(_DEEP):
                    deep.append(path)
                if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                    clear.append(path)
        effect = (
            "they are turned as it says, and masks must fit the images so turned"
            if self.upright
            else f"it is ignored, as in torchvision; --{self.setting.rpartition('.')[0]}.exif apply turns them"
        )
        return [
            f"{self.setting}: {len(images)} of {len(looked)} images looked at {what} "
            f"(for one {printable(images[0].relative_to(self.root), 120)})"
            for images, what in (
                (turned, f"carry an EXIF orientation: {effect}"),
                (deep, "have 16-bit or floating-point values: 0 to 65535, or 0 to 1, is scaled to 0 to 255"),
                (clear, "may be transparent: transparency is dropped, and the colours behind it are seen"),
            )
            if images
        ]


def checked_folder(folder: str, setting: str, advice: str) -> Path:
    """`folder` as a path. Raises UserError for an address, a file, a name that is not text, and for nothing at all."""
    if not is_folder(folder):
        raise UserError(f"{setting} {folder!r} is an address. Allowed: a local folder; copy or mount the images first.")
    if not _is_text(folder):
        raise UserError(
            f"{setting} {folder!r} is not valid UTF-8, so that no configuration can name it. Change the folder's name."
        )
    root = Path(split(folder)[1])
    if not root.is_dir():
        what = "is a file" if root.is_file() else "does not exist"
        raise UserError(f"{setting} {folder!r} {what}. {advice}")
    return root


def _class_of(path: Path, root: Path) -> str:
    """The first folder below `root`, as text that every file can hold; empty for an image straight in `root`."""
    if path.parent == root:
        return ""
    return os.fsencode(path.relative_to(root).parts[0]).decode("utf-8", "backslashreplace")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
