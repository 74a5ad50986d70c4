"""What follows from which settings were given by hand: the source of images, and contradictions."""

from __future__ import annotations

from collections.abc import Collection

from singer_ray.config.tree import FOLDERS, Config, field_names
from singer_ray.errors import UserError, printable


class GivenNames(frozenset[str]):
    """Dotted names of the settings that were set by hand."""

    start: Config | None = None
    """The preset that they change, where it is known."""


_BLOCKS = {"data": "scenes", "evaluation.data": "same"}
"""Blocks that name a source, and what they read by default."""
_DEMO = ("demo", "demo-clean")
"""Teachers that know the built-in scenes only."""


def settle(config: Config, given: Collection[str], *, distils: bool = True) -> Config:
    """The configuration with the sources that follow from the settings in `given`, dotted names set by hand.

    Folders mean images from folders, unless a source is given too. `distils`: whether the configured teacher is read.
    Raises UserError for settings that contradict each other, and where a teacher of the scenes would be shown other
    images that nobody named together with it.
    """
    for block, default in _BLOCKS.items():
        source = f"{block}.source"
        folders = [name for name in _named(block, FOLDERS) if name in given and config.value(name) is not None]
        if not folders:
            continue
        shown = f"--{folders[0]} {config.value(folders[0])}"
        scenes = sorted(name for name in given if name.startswith(f"{block}.scenes."))
        if source in given:
            if config.value(source) != "imagefolder":
                raise UserError(
                    f"--{source} {config.value(source)} and {shown} contradict each other: one reads no folder, the "
                    f"other is one. Use --{source} imagefolder, or leave one of them out."
                )
            continue
        if config.value(source) not in (default, "imagefolder"):
            raise UserError(
                f"{shown} is given, but the preset reads {source} {config.value(source)}. "
                f"Use --{source} imagefolder, or leave it out."
            )
        if scenes:
            raise UserError(
                f"{shown} is a folder of images, and --{scenes[0]} is of the built-in scenes. Give only one of them."
            )
        if config.value(source) == "imagefolder":
            continue
        if block == "data" and distils and config.teacher.name in _DEMO and "teacher.name" not in given:
            raise UserError(
                f"{shown} is given, but the teacher {config.teacher.name} of this preset knows the built-in scenes "
                "only. Use --preset imagenet-vitl-vitt, or name another teacher with --teacher.name."
            )
        config = config.override({source: "imagefolder"})
    return config


def differences(config: Config, start: Config) -> list[str]:
    """What differs from the preset, a line a setting."""
    return [
        f"{name}: {_plain(config.value(name))}   (preset: {_plain(start.value(name))})"
        for name in field_names()
        if config.value(name) != start.value(name)
    ]


def _named(block: str, names: Collection[str]) -> list[str]:
    return [f"{block}.{name}" for name in names]


def _plain(value: object) -> str:
    return printable(list(value) if isinstance(value, tuple) else value)
