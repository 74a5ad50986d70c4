"""Images that two sets share: the same files, equal ones, and ones that look alike."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from singer_ray.data.imagefolder import ImageFolder
from singer_ray.data.masks import MaskedFolder
from singer_ray.data.scenes import Scenes
from singer_ray.data.source import Source, Subset, image_of
from singer_ray.data.wrapped import WrappedDataset
from singer_ray.errors import printable
from singer_ray.images.pixels import rgb

FILES, AMONG = 2000, 50_000
"""Files that are looked up, and among how many training files: by inode, and by content where sizes are equal."""
LOOKED_AT, AMONG_LOOKED_AT = 250, 1000
"""Images that are looked at, and among how many training images."""
PATIENCE = 10.0
"""Seconds after which no further image is looked at."""
_READ_AT_MOST = 2**28
"""Bytes of training files that are compared with equally long ones."""
_SIDE = 16
_ALIKE = 0.998
"""Correlation of two thumbnails of 16 x 16 grey values. Copies saved anew (JPEG quality 30 to 90) or at another size
were above .999 for photographs; different digits of 8 x 8 pixels were below .983."""
_CONTRAST = 2.0
"""Grey levels of standard deviation below which a thumbnail tells nothing."""


@dataclass
class _Group:
    """How many images are shared in one way."""

    count: int = 0
    example: tuple[str, str] | None = None

    def add(self, one: object, other: object) -> None:
        self.count += 1
        self.example = self.example or (printable(one, 120), printable(other, 120))


@dataclass
class _Shared:
    same: _Group = field(default_factory=_Group)
    equal: _Group = field(default_factory=_Group)
    alike: _Group = field(default_factory=_Group)
    compared: tuple[int, int] = (0, 0)
    looked: tuple[int, int] = (0, 0)


def overlap_remark(name: str, other: Source, train: Source, train_name: str = "training images") -> str | None:
    """One line that says how many images of `other` are training images too; None where none was found.

    Compared are a fixed random choice of the images, so that a large set costs seconds: files by inode and content,
    images in memory by their pixels, and some of both by their looks. The line says how many were compared.
    """
    whole = _known(other, train)
    if whole is not None:
        count = f"all {len(other)}" if whole == len(other) else f"{whole} of {len(other)}"
        return _sentence(f"{count} {name} are {train_name} too") if whole else None
    if isinstance(_base(other), Scenes) or isinstance(_base(train), Scenes):
        return None  # made by split and seed: no two are the same
    shared, gone = _Shared(), set[int]()
    paths, train_paths = _paths(other), _paths(train)
    if paths is not None and train_paths is not None:
        gone = _compare_files(paths, train_paths, shared, _root(other), _root(train))
    _compare_looks(_Looks(other, LOOKED_AT, PATIENCE / 2), _Looks(train, AMONG_LOOKED_AT, PATIENCE), gone, shared)
    return _in_words(name, train_name, shared)


def _in_words(name: str, train_name: str, shared: _Shared) -> str | None:
    parts = [
        f"{f.count} of {of[0]} compared (with {of[1]} {train_name}) {what}, for one {f.example[0]!r} and "
        f"{f.example[1]!r}"
        for f, of, what in (
            (shared.same, shared.compared, "are the same files"),
            (shared.equal, shared.compared if shared.compared[0] else shared.looked, "are equal copies"),
            (shared.alike, shared.looked, "look the same"),
        )
        if f.example is not None
    ]
    return _sentence(f"{name} are among the {train_name}: {'; '.join(parts)}") if parts else None


def _sentence(fact: str) -> str:
    return f"{fact}. Scores on them say little about new images: give others."


def _known(other: Source, train: Source) -> int | None:
    """How many images two sets over the same data have in common; None where that is not known."""
    (one, places), (two, others) = _origin(other), _origin(train)
    if one is not two:
        if isinstance(one, Scenes) and isinstance(two, Scenes) and (one.split, one.seed) == (two.split, two.seed):
            return min(len(one), len(two))
        return None
    return len(set(places) & set(others))


def _origin(source: Source) -> tuple[Any, Sequence[int]]:
    """What a set is taken from in the end, and which places of it."""
    places: Sequence[int] = range(len(source))
    origin: Any = source
    while True:
        if isinstance(origin, WrappedDataset):
            origin = origin.dataset
        elif isinstance(origin, Subset):
            origin, places = origin.source, [origin.indices[i] for i in places]
        elif hasattr(origin, "dataset") and hasattr(origin, "indices"):  # torch.utils.data.Subset
            origin, places = origin.dataset, [int(origin.indices[i]) for i in places]
        else:
            return origin, places


def _base(source: Source) -> Source:
    return _base(source.source) if isinstance(source, Subset) else source


def _paths(source: Source) -> list[Path] | None:
    if isinstance(source, Subset):
        inner = _paths(source.source)
        return None if inner is None else [inner[i] for i in source.indices]
    if isinstance(source, MaskedFolder):
        return source.images.paths
    return source.paths if isinstance(source, ImageFolder) else None


def _root(source: Source) -> Path:
    """The folder of a source that has `_paths`."""
    base: Any = _base(source)
    root: Path = base.images.root if isinstance(base, MaskedFolder) else base.root
    return root


def _some(count: int, most: int) -> list[int]:
    """At most `most` of `count` places, in a fixed random order."""
    return [int(i) for i in np.random.default_rng(0).permutation(count)[:most]]


def _compare_files(
    paths: Sequence[Path], train: Sequence[Path], shared: _Shared, root: Path, train_root: Path
) -> set[int]:
    """Same and equal files; returns the places in `paths` of those."""
    looked, among = _some(len(paths), FILES), _some(len(train), AMONG)
    shared.compared = (len(looked), len(among))
    inodes: dict[tuple[int, int], Path] = {}
    sizes: dict[int, list[Path]] = {}
    for path in (train[i] for i in among):
        status = _status(path)
        if status is not None:
            inodes.setdefault((status.st_dev, status.st_ino), path)
            sizes.setdefault(status.st_size, []).append(path)
    digests: dict[Path, bytes | None] = {}
    gone, left = set(), _READ_AT_MOST
    for index in looked:
        path = paths[index]
        status = _status(path)
        if status is None:
            continue
        twin = inodes.get((status.st_dev, status.st_ino))
        if twin is not None:
            shared.same.add(path.relative_to(root), twin.relative_to(train_root))
            gone.add(index)
            continue
        own = None
        for twin in sizes.get(status.st_size, ()):
            if twin not in digests:
                if left < 0:
                    continue
                left -= status.st_size
                digests[twin] = _digest(twin)
            own = own or _digest(path)
            if own is not None and digests[twin] == own:
                shared.equal.add(path.relative_to(root), twin.relative_to(train_root))
                gone.add(index)
                break
    return gone


def _compare_looks(other: _Looks, train: _Looks, gone: set[int], shared: _Shared) -> None:
    """Equal pixels and equal looks, of images that are not known to be shared."""
    shared.looked = (len(other.seen), len(train.seen))
    if not other.seen or not train.seen:
        return
    thumbnails = np.stack([thumbnail for *_, thumbnail in train.seen])
    pixels = {digest: i for i, digest, _ in train.seen if digest is not None}
    for index, digest, thumbnail in other.seen:
        if index in gone:
            continue
        if digest is not None and digest in pixels:
            shared.equal.add(other.name(index), train.name(pixels[digest]))
            continue
        likeness = thumbnails @ thumbnail / _SIDE**2
        nearest = int(likeness.argmax())
        if likeness[nearest] >= _ALIKE:
            shared.alike.add(other.name(index), train.name(train.seen[nearest][0]))


class _Looks:
    """Some images of a set, small: `seen` holds their places, digests of their pixels (of images in memory) and
    standardised thumbnails, [256]. No more are looked at after `patience` seconds."""

    def __init__(self, source: Source, most: int, patience: float) -> None:
        self.source, self.paths = source, _paths(source)
        self.seen: list[tuple[int, bytes | None, np.ndarray]] = []
        until = time.monotonic() + patience
        for index in _some(len(source), most):
            if time.monotonic() > until:
                break
            look = self._look(index)
            if look is not None:
                self.seen.append((index, *look))

    def name(self, index: int) -> str:
        """What a person calls an image."""
        return str(self.paths[index].relative_to(_root(self.source))) if self.paths is not None else f"image {index}"

    def _look(self, index: int) -> tuple[bytes | None, np.ndarray] | None:
        digest = None
        if self.paths is not None:
            image = _opened(self.paths[index])
            if image is None:
                return None
        else:
            pixels = image_of(self.source, index).permute(1, 2, 0).contiguous().numpy()
            digest, image = hashlib.blake2b(pixels.tobytes()).digest(), Image.fromarray(pixels)
        small = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float64).ravel()
        contrast = small.std()
        return digest, (small - small.mean()) / contrast if contrast >= _CONTRAST else np.zeros_like(small)


def _opened(path: Path) -> Image.Image | None:
    """A small version of a file's image; None for one that cannot be read, which is told when it is needed."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (4 * _SIDE, 4 * _SIDE))  # a JPEG file is decoded small
            return Image.fromarray(rgb(image))
    except Exception:
        return None


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _digest(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").digest()
    except OSError:
        return None
