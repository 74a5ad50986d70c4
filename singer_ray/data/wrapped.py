"""Map-style data sets of one's own as sources: torch's, torchvision's, Hugging Face's, or any with `len` and `[i]`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from singer_ray.data.items import is_scaled, key_of, read_item
from singer_ray.data.source import Sample, Source
from singer_ray.errors import UserError, printable

if TYPE_CHECKING:
    from singer_ray.config import SourceConfig

ANNOTATIONS = ("label", "mask", "depth")
SPLITS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
"""What a set may be called, and what it is."""
_UNKNOWN = (255, -1)
_LOOKED_AT = 500
"""Items read to find the largest label, where a data set does not list its labels."""


class WrappedDataset:
    """Wraps anything with `len` and `[i]` that yields what `read_item` reads.

    Class names come from `classes`, the data set's own attribute or its features. Without any, the classes are named
    by their numbers, up to the largest label that is found; `remarks` says so, and how pixels were taken.
    """

    def __init__(
        self, dataset: Any, *, classes: Sequence[str] | None = None, mask_classes: Sequence[str] | None = None
    ) -> None:
        self.dataset = dataset
        _check(dataset)
        self.fields: frozenset[str] = frozenset()
        first = self[0]
        self.fields = frozenset(name for name in ANNOTATIONS if name in first)
        self.scaled = is_scaled(dataset[0])
        self.numbered: dict[str, str] = {}
        """Fields whose classes are named by number, and how many items were looked at for that."""
        own = _class_names(dataset)
        masked = _own(dataset, "mask_classes") or (own if "label" not in self.fields else None)
        self.classes = self._named("label", classes or own)
        self.mask_classes = self._named("mask", mask_classes or masked)

    @property
    def remarks(self) -> list[str]:
        """What was assumed, for a person to read."""
        kind = type(self.dataset).__name__
        lines = [f"{kind}: images have floating-point values, taken as 0 (black) to 1 (white)"] if self.scaled else []
        for field, seen in self.numbered.items():
            last = len(self.classes if field == "label" else self.mask_classes) - 1
            name = "classes" if field == "label" else "mask_classes"
            lines.append(
                f"{kind}: {field} classes are named 0 to {last}, by the largest {field} of {seen} items; an attribute "
                f"{name} would name them"
            )
        return lines

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        try:
            sample = read_item(self.dataset[index])
        except UserError as error:
            raise UserError(f"{type(self.dataset).__name__}[{index}]: {error}") from error
        missing = sorted(field for field in self.fields if field not in sample)
        if missing:
            raise UserError(
                f"{type(self.dataset).__name__}[{index}] has no {missing[0]}, though the first item has. Give every "
                "item one, or none."
            )
        return sample

    def _named(self, field: str, names: Iterable[Any] | None) -> tuple[str, ...]:
        if field not in self.fields:
            return ()
        if names:
            return tuple(_text(name) for name in names)
        self.numbered[field] = "all" if self._listed(field) is not None else str(self._places().size)
        return tuple(map(str, range(self._largest(field) + 1)))

    def _largest(self, field: str) -> int:
        listed = self._listed(field)
        if listed is not None:
            return int(listed.max())
        if field == "label":
            return max(self[int(i)]["label"] for i in self._places())
        values = [self[int(i)]["mask"].unique().tolist() for i in self._places()]
        return max((v for seen in values for v in seen if v not in _UNKNOWN), default=0)

    def _listed(self, field: str) -> np.ndarray | None:
        return labels_of(self.dataset) if field == "label" else None

    def _places(self) -> np.ndarray:
        return np.unique(np.linspace(0, len(self) - 1, min(len(self), _LOOKED_AT)).astype(int))


def as_source(dataset: Any) -> Source:
    """`dataset` itself when it is a source, else wrapped. Raises UserError for items of an unknown kind."""
    return dataset if isinstance(dataset, Source) else WrappedDataset(dataset)


def as_sources(sets: Any, argument: str) -> dict[str, Source]:
    """Sources under "train", "val" and "test"; one data set alone is "train".

    Classes that no set names are the same in all of them. Raises UserError for other names, for no "train", and for
    what cannot be read; `argument` is what the sets were given as.
    """
    if not isinstance(sets, Mapping):
        sets = {"train": sets}
    unknown = [name for name in sets if name not in SPLITS]
    if unknown:
        raise UserError(
            f"{argument} has a set {printable(unknown[0])!r}. Allowed: train, val and test (the first is needed)."
        )
    if "train" not in sets:
        raise UserError(f"{argument} has {', '.join(sets) or 'no sets'}. It needs a data set under 'train'.")
    sources: dict[str, Source] = {}
    for name, dataset in sets.items():
        if SPLITS[name] in sources:
            raise UserError(f"{argument} has {SPLITS[name]} twice, once as {name}. Give it once.")
        try:
            sources[SPLITS[name]] = as_source(dataset)
        except UserError as error:
            raise UserError(f"{argument}[{name!r}]: {error}") from error
    _same_classes(sources)
    return sources


def refuse(settings: SourceConfig, block: str) -> NoReturn:
    """The source `own` by its name alone, without the data sets. Raises UserError."""
    raise UserError(
        f"{block}.source own takes data sets from Python: singer_ray.distill(data=...). Use imagefolder here."
    )


def labels_of(dataset: Any) -> np.ndarray | None:
    """All labels, where a data set lists them: [len], whole numbers. None where it does not."""
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):  # torch's Subset
        inner = labels_of(dataset.dataset)
        return None if inner is None else inner[np.asarray(dataset.indices)]
    if hasattr(dataset, "datasets"):  # torch's ConcatDataset
        parts = [labels_of(part) for part in dataset.datasets]
        known = [part for part in parts if part is not None]
        return np.concatenate(known) if len(known) == len(parts) else None
    if getattr(dataset, "target_transform", None) is not None:
        return None
    labels: Any = next(
        (v for n in ("targets", "labels", "_labels") if (v := getattr(dataset, n, None)) is not None), None
    )
    if labels is None and hasattr(dataset, "tensors") and len(dataset.tensors) == 2:  # torch's TensorDataset
        labels = dataset.tensors[1]
    if labels is None and hasattr(dataset, "features"):
        key = key_of(dataset.features, "label")
        labels = None if key is None else dataset[key]
    try:
        values = np.asarray(labels)
    except (TypeError, ValueError, RuntimeError):
        return None
    fits = values.shape == (len(dataset),) and values.size and np.issubdtype(values.dtype, np.integer)
    return values if fits else None


def _check(dataset: Any) -> None:
    kind = type(dataset).__name__
    if hasattr(dataset, "batch_size") and hasattr(dataset, "dataset"):
        raise UserError(f"{kind} gives batches. Give the data set that it reads: its attribute dataset.")
    if not hasattr(dataset, "__getitem__"):
        raise UserError(f"{kind} cannot be indexed. Give a data set with len() and [i], not an iterable one.")
    try:
        count = len(dataset)
    except TypeError as error:
        raise UserError(f"{kind} has no length. Give a data set with len() and [i].") from error
    if not count:
        raise UserError(f"{kind} is empty. Give it images.")


def _class_names(dataset: Any) -> Iterable[Any] | None:
    """The names of the classes of a data set, of the one that it is a part of, or of its features (Hugging Face)."""
    names = _own(dataset, "classes")
    features = _own(dataset, "features")
    if names is None and isinstance(features, Mapping):
        key = key_of(features, "label")
        names = None if key is None else getattr(features[key], "names", None)
    return names or None


def _own(dataset: Any, name: str) -> Any:
    """An attribute of a data set, or of the one that it was made of (Subset, ConcatDataset)."""
    for _ in range(10):
        if (value := getattr(dataset, name, None)) is not None:
            return value
        parts = getattr(dataset, "datasets", None)
        dataset = parts[0] if parts else getattr(dataset, "dataset", None)
    return None


def _same_classes(sources: Mapping[str, Source]) -> None:
    """Names the classes of sets that have only numbers as "train" names them, else all by the set that has most."""
    train = sources["train"]
    for field, attribute in (("label", "classes"), ("mask", "mask_classes")):
        numbered = [s for s in sources.values() if isinstance(s, WrappedDataset) and field in s.numbered]
        names = max((getattr(source, attribute) for source in numbered), key=len, default=())
        own: Sequence[str] = getattr(train, attribute)
        named = train not in numbered and len(own) >= len(names)
        for source in numbered:
            setattr(source, attribute, tuple(own) if named else names)
            if named:
                del source.numbered[field]


def _text(name: Any) -> str:
    """A class name: of several words for one class (ImageNet's) all of them, of a record its `name`."""
    if hasattr(name, "name"):
        return str(name.name)
    return ", ".join(map(str, name)) if isinstance(name, (tuple, list)) else str(name)
