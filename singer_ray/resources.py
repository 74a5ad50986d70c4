"""Files that come with the package: presets, search spaces, cluster files."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def find_shipped(kind: str, name: str) -> Path | None:
    """The file that `name` means: a path of one's own first, else the shipped `name`.yaml of that kind."""
    own = Path(name)
    if own.is_file():
        return own
    return next(
        (f for f in shipped_files(kind) if f.stem == name or (f.name == own.name and own.parent.name == kind)), None
    )


def shipped_names(kind: str) -> list[str]:
    """What is shipped of a kind ("presets", "tune_spaces"), by name."""
    return sorted(f.stem for f in shipped_files(kind))


def shipped_files(kind: str) -> list[Path]:
    """The files that are shipped of a kind, by name."""
    # A wheel carries the top-level folders inside the package; a checkout has them beside it.
    folder = next((f for f in (_PACKAGE / kind, _PACKAGE.parent / kind) if f.is_dir()), None)
    return sorted(folder.glob("*.yaml")) if folder else []
