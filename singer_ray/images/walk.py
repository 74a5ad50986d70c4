"""The image files below a folder, and what is left out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from singer_ray.errors import UserError, printable

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff", ".gif"})
HIDDEN, DANGLING, CYCLE, OTHER, BARE = (
    "hidden",
    "broken link",
    "link to a folder around it",
    "other kind of file",
    "folder without images",
)
_PLURAL = {
    HIDDEN: "hidden",
    DANGLING: "broken links",
    CYCLE: "links to a folder around them",
    OTHER: "other kinds of files",
    BARE: "folders without images",
}


@dataclass
class Walked:
    """What was found below a folder."""

    paths: list[Path] = field(default_factory=list)
    """The images, in the order of their paths."""
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Why -> what, relative to the folder."""

    def remark(self, setting: str) -> str | None:
        """One line that names what is left out; None where nothing is."""
        parts = [
            f"{len(names)} {_PLURAL[why] if len(names) > 1 else why} ({printable(min(names), 80)!r})"
            for why, names in self.left_out.items()
        ]
        return f"{setting}: left out {', '.join(parts)}" if parts else None


def walk(root: Path, setting: str) -> Walked:
    """Every image file below `root`, through links to files and folders too.

    Left out and named: what is hidden (a name that starts with a dot), links that lead nowhere or back to a folder
    around them, files of other kinds, and first-level folders without an image. Raises UserError for a folder that
    cannot be read.
    """
    walked = Walked()
    for path, why in _below(root, root, setting, _identity(root)):
        if why is None:
            walked.paths.append(path)
        else:
            walked.left_out.setdefault(why, []).append(str(path.relative_to(root)))
    walked.paths.sort()
    with_images = {path.relative_to(root).parts[0] for path in walked.paths}
    bare = [name for name in walked.left_out.pop(BARE, []) if name not in with_images]
    if bare:
        walked.left_out[BARE] = bare
    return walked


def _below(root: Path, folder: Path, setting: str, *around: tuple[int, int]) -> Iterator[tuple[Path, str | None]]:
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"{setting}: the folder {str(folder)!r} cannot be read ({error.strerror or error}). Change its "
            "permissions, "
            "or remove it."
        ) from error
    for entry in listed:
        path = folder / entry.name
        if entry.name.startswith("."):
            yield path, HIDDEN
            continue
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:  # a link to itself
            is_folder = is_file = False
        if is_folder:
            here = _identity(path)
            if here in around:
                yield path, CYCLE
                continue
            if folder == root:
                yield path, BARE  # taken back when an image is found in it
            yield from _below(root, path, setting, *around, here)
        elif is_file:
            yield path, None if path.suffix.lower() in EXTENSIONS else OTHER
        else:
            yield path, DANGLING if entry.is_symlink() else OTHER


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
