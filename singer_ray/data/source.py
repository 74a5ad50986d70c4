"""What a data source is: a sequence of samples that says which annotations it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired, Protocol, TypedDict, TypeVar, runtime_checkable

import numpy as np
import torch

T = TypeVar("T")


class Sample(TypedDict):
    """One image with what is known of it."""

    image: torch.Tensor
    """uint8 [3, height, width], not normalised."""
    label: NotRequired[int]
    """Class index."""
    mask: NotRequired[torch.Tensor]
    """Integer [height, width]: the class of each pixel."""
    depth: NotRequired[torch.Tensor]
    """float32 [height, width], in the source's own unit."""


@runtime_checkable
class Source(Protocol):
    """Images with the annotations named in `fields`; `source[i]` is a `Sample` and the same at every reading.

    Any object with these members is a source, so a data set of one's own needs no base class.
    """

    @property
    def fields(self) -> frozenset[str]:
        """The annotations that every sample has: any of "label", "mask", "depth"."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the label classes, in the order of their indices; empty without labels."""

    @property
    def mask_classes(self) -> Sequence[str]:
        """Names of the mask classes, in the order of their indices; empty without masks."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def image_of(source: Source, index: int) -> torch.Tensor:
    """The image alone; a source with a method `image(index)` need not read its annotations for that."""
    read = getattr(source, "image", None)
    image: torch.Tensor = read(index) if callable(read) else source[index]["image"]
    return image


def remarks_of(source: Source) -> list[str]:
    """What a person should know of a source: its attribute `remarks`, lines of text, where it has one."""
    return list(getattr(source, "remarks", ()))


def evenly(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of `items`, spread evenly over them."""
    return [items[i] for i in evenly_placed(len(items), count)]


def evenly_placed(length: int, count: int) -> list[int]:
    """At most `count` of the places 0 .. `length` - 1, spread evenly over them."""
    return list(range(length)) if length <= count else [i * length // count for i in range(count)]


class Subset:
    """Some samples of a source, in the order of `indices`."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        self.source, self.indices = source, indices
        self.fields, self.classes, self.mask_classes = source.fields, source.classes, source.mask_classes
        self.remarks = remarks_of(source)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.source[self.indices[index]]


def shuffled_subset(source: Source, count: int) -> Source:
    """The first `count` of a fixed shuffle, so that folders sorted by class are sampled evenly; 0 or too many: all."""
    if not 0 < count < len(source):
        return source
    order = np.random.default_rng(0).permutation(len(source))
    return Subset(source, sorted(int(i) for i in order[:count]))
