"""The training, validation and test sets that a configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from singer_ray.data.imagefolder import ImageFolder
from singer_ray.data.masks import MaskedFolder
from singer_ray.data.scenes import SPLITS, Scenes
from singer_ray.data.source import Source
from singer_ray.errors import UserError

if TYPE_CHECKING:
    from singer_ray.config import EvaluationSourceConfig, SourceConfig

Splits = Mapping[str, Source]
"""Any of "train", "val" and "test"."""


def open_splits(data: SourceConfig | EvaluationSourceConfig, block: str = "data") -> dict[str, Source]:
    """The sets that `data` names; `block` is its dotted name, for messages. Raises UserError when one cannot be had."""
    if data.source == "scenes":
        counts = (data.scenes.train_images, data.scenes.val_images, data.scenes.test_images)
        return {split: Scenes(split, count, data.scenes.seed) for split, count in zip(SPLITS, counts)}
    if data.source == "own":
        raise UserError(
            f"{block}.source own takes data sets from Python: singer_ray.distill(data=...). Use imagefolder here."
        )
    if data.train is None:
        raise UserError(
            f"{block}.source imagefolder needs --{block}.train DIR: a folder of images or of class folders."
        )
    upright = data.exif == "apply"
    train = ImageFolder(data.train, f"{block}.train", upright=upright)
    splits: dict[str, Source] = {"train": train}
    for split, folder in (("val", data.val), ("test", data.test)):
        if folder is not None:
            splits[split] = ImageFolder(folder, f"{block}.{split}", train.classes or None, upright=upright)
    masks = {"train": data.train_masks, "val": data.val_masks, "test": data.test_masks}
    mask_classes: tuple[str, ...] | None = None
    for split, folder in masks.items():
        if folder is None:
            continue
        setting, images = f"{block}.{split}_masks", splits.get(split)
        if not isinstance(images, ImageFolder):
            raise UserError(f"{setting} {folder!r} has no images to go with. Give --{block}.{split} DIR too.")
        masked = MaskedFolder(images, folder, setting, mask_classes)
        mask_classes, splits[split] = masked.mask_classes, masked
    return splits
