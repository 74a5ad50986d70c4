"""The source imagefolder: folders of images, with masks beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from singer_ray.data.imagefolder import ImageFolder
from singer_ray.data.masks import MaskedFolder
from singer_ray.data.source import Source
from singer_ray.errors import UserError

if TYPE_CHECKING:
    from singer_ray.config import SourceConfig


def open_folders(settings: SourceConfig, block: str) -> dict[str, Source]:
    """The sets of which a folder is named. Raises UserError for one that cannot be read."""
    if settings.train is None:
        raise UserError(
            f"{block}.source imagefolder needs --{block}.train DIR: a folder of images or of class folders."
        )
    upright = settings.exif == "apply"
    train = ImageFolder(settings.train, f"{block}.train", upright=upright)
    images = {"train": train}
    for split, folder in (("val", settings.val), ("test", settings.test)):
        if folder is not None:
            images[split] = ImageFolder(folder, f"{block}.{split}", train.classes or None, upright=upright)
    splits: dict[str, Source] = dict(images)
    masks = {"train": settings.train_masks, "val": settings.val_masks, "test": settings.test_masks}
    mask_classes: tuple[str, ...] | None = None
    for split, folder in masks.items():
        if folder is None:
            continue
        setting = f"{block}.{split}_masks"
        if split not in images:
            raise UserError(f"{setting} {folder!r} has no images to go with. Give --{block}.{split} DIR too.")
        masked = MaskedFolder(images[split], folder, setting, mask_classes)
        mask_classes, splits[split] = masked.mask_classes, masked
    return splits
