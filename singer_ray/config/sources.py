"""Where images may come from: every source by its name, and the settings that they share.

Torch-free: a source is opened by a function in data/, which is named here and loaded when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from singer_ray.config.places import Place
from singer_ray.settings import Block

FOLDERS = ("train", "val", "test", "train_masks", "val_masks", "test_masks")
"""Settings of a source that are folders."""
FROM_PYTHON = "own"
"""The source of data sets that are given as objects."""


@dataclass(frozen=True)
class SourceEntry:
    """What must be known of a source before it is opened."""

    opener: str
    """MODULE:FUNCTION that takes the block of settings and its dotted name, and gives the sets."""
    words: str
    """What it is, for messages."""
    describe: Callable[[Mapping[str, Any], Callable[[str], str]], str]
    """A phrase for model cards, from the block as a mapping and a function that quotes text in Markdown."""
    reads: tuple[str, ...] = ()
    """Settings of the block that it reads."""
    for_scores: tuple[str, ...] = ()
    """Those of them that have no effect where the probes have images of their own."""
    implied_by: tuple[str, ...] = ()
    """Settings that mean this source where none is named."""


SOURCES: dict[str, SourceEntry] = {
    "scenes": SourceEntry(
        "singer_ray.data.scenes:open_scenes",
        "the built-in scenes",
        lambda data, quote: (
            f"{int(data['scenes']['train_images'])} built-in procedural scenes (seed {int(data['scenes']['seed'])})"
        ),
        reads=("scenes.train_images", "scenes.val_images", "scenes.test_images", "scenes.seed"),
        for_scores=("scenes.val_images", "scenes.test_images"),
    ),
    "imagefolder": SourceEntry(
        "singer_ray.data.folders:open_folders",
        "folders of images",
        lambda data, quote: f"images in {quote(data['train'])}",
        reads=(*FOLDERS, "exif"),
        for_scores=FOLDERS[1:],
        implied_by=FOLDERS,
    ),
    FROM_PYTHON: SourceEntry(
        "singer_ray.data.wrapped:refuse", "data sets from Python", lambda data, quote: "images given from Python"
    ),
}
"""Name of a source, as `data.source` has it -> the source."""

if TYPE_CHECKING:
    SourceName = str
    ProbeSourceName = str
else:
    SourceName = Literal[*SOURCES]
    ProbeSourceName = Literal["same", *SOURCES]


class ScenesConfig(Block):
    """The built-in procedural scenes (data.source scenes)."""

    train_images: int = Field(6144, ge=1)
    """Training scenes."""
    val_images: int = Field(512, ge=1)
    """Validation scenes."""
    test_images: int = Field(1024, ge=1)
    """Test scenes."""
    seed: int = Field(0, ge=0)
    """Seed of the scenes themselves; not changed by --seed."""


class SourceConfig(Block):
    """Where images come from."""

    source: SourceName = "scenes"
    """scenes (built in), imagefolder (folders of image files; class folders give the labels), or own (from Python)."""
    train: Place | None = None
    """Folder of training images (imagefolder). Labels are optional for distillation."""
    val: Place | None = None
    """Folder of validation images (imagefolder), which select trials."""
    test: Place | None = None
    """Folder of test images (imagefolder), read once at the end. Without it there are no test/ metrics."""
    train_masks: Place | None = None
    """Folder of masks of the training images (imagefolder): PNG files of class numbers (255: unknown), classes.txt."""
    val_masks: Place | None = None
    """Folder of masks of the validation images (imagefolder), with the classes of train_masks."""
    test_masks: Place | None = None
    """Folder of masks of the test images (imagefolder), with the classes of train_masks."""
    exif: Literal["ignore", "apply"] = "ignore"
    """EXIF orientation of images (imagefolder): ignore it, as torchvision does, or apply it. Masks are never turned."""
    scenes: ScenesConfig = ScenesConfig()


class EvaluationSourceConfig(SourceConfig):
    """Annotated images for the probes, when they are not those of `data`."""

    source: ProbeSourceName = "same"
    """same (the sets of `data`), or another source with its own train, val and test sets; own is for Python."""
    train: Place | None = None
    """Folder of labelled images that the probes are fitted on (imagefolder)."""
    val: Place | None = None
    """Folder of labelled validation images (imagefolder)."""
    test: Place | None = None
    """Folder of labelled test images (imagefolder)."""


def readers_of(setting: str) -> list[str]:
    """The sources that read a setting of the block."""
    return [name for name, entry in SOURCES.items() if setting in entry.reads]


def implied_source(settings: Collection[str]) -> str | None:
    """The source that settings of the block mean where none is named."""
    return next((name for name, entry in SOURCES.items() if not set(entry.implied_by).isdisjoint(settings)), None)
