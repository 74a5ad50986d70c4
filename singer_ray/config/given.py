"""What follows from which settings were given by hand: the source of images, and contradictions."""

from __future__ import annotations

from collections.abc import Collection

from singer_ray.config.sources import FOLDERS, SOURCES, implied_source, readers_of
from singer_ray.config.tree import Config, field_names
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
        folders = [n for n in FOLDERS if f"{block}.{n}" in given and config.value(f"{block}.{n}") is not None]
        implied = implied_source(folders)
        if implied is None:
            continue
        shown = f"--{block}.{folders[0]} {config.value(f'{block}.{folders[0]}')}"
        named = config.value(source)
        fits = named in readers_of(folders[0])
        if source in given:
            if not fits:
                raise UserError(
                    f"--{source} {named} and {shown} contradict each other: one reads no folder, the "
                    f"other is one. Use --{source} {implied}, or leave one of them out."
                )
            continue
        if named != default and not fits:
            raise UserError(
                f"{shown} is given, but the preset reads {source} {named}. Use --{source} {implied}, or leave it out."
            )
        other = _of_another(named if fits else implied, block, given)
        if other is not None:
            raise UserError(f"{shown} is a folder of images, and {other}. Give only one of them.")
        if fits:
            continue
        if block == "data" and distils and config.teacher.name in _DEMO and "teacher.name" not in given:
            raise UserError(
                f"{shown} is given, but the teacher {config.teacher.name} of this preset knows the built-in scenes "
                "only. Use --preset imagenet-vitl-vitt, or name another teacher with --teacher.name."
            )
        config = config.override({source: implied})
    return config


def differences(config: Config, start: Config) -> list[str]:
    """What differs from the preset, a line a setting."""
    return [
        f"{name}: {_plain(config.value(name))}   (preset: {_plain(start.value(name))})"
        for name in field_names()
        if config.value(name) != start.value(name)
    ]


def _of_another(source: str, block: str, given: Collection[str]) -> str | None:
    """The first setting in `given` that other sources read and this one does not, in words."""
    for name in sorted(name for name in given if name.startswith(f"{block}.")):
        readers = readers_of(name.removeprefix(f"{block}."))
        if readers and source not in readers:
            return f"--{name} is of {SOURCES[readers[0]].words}"
    return None


def _plain(value: object) -> str:
    return printable(list(value) if isinstance(value, tuple) else value)
