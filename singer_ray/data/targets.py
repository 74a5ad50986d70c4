"""What is known of the images, looked at before anything is trained: does it fit, and what can be measured with it?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from singer_ray.data.scenes import Scenes
from singer_ray.data.source import Source, Subset, evenly_placed
from singer_ray.data.wrapped import WrappedDataset, labels_of
from singer_ray.errors import UserError, printable
from singer_ray.metrics import probed

UNKNOWN = (255, -1)
"""Mask values of pixels of no class."""
FIT = "train"
NAMES = {FIT: "training images", "val": "validation images", "test": "test images"}
_LOOKED_AT, _AT_MOST = 64, 1024
"""Samples read of each set; and as long as they hold one class only."""
_NAMED = 5


@dataclass
class Targets:
    """What the look at the targets has shown."""

    remarks: list[str] = field(default_factory=list)
    """Lines for whoever reads the metrics."""
    unmeasured: dict[str, str] = field(default_factory=dict)
    """`SPLIT/METRIC` that the sets would have, and why it cannot be measured."""


def check_targets(sources: Mapping[str, Source], names: Mapping[str, str] | None = None) -> Targets:
    """Looks at labels, masks and depth of every set; "train" is what probes are fitted on.

    All labels are read where that is cheap (folders, and data sets with `targets`, `labels` or a column `label`), else
    those of some samples, as masks and depth are: 64 of each set, up to 1024 as long as these show one class only.
    `names` maps a set to what a person calls it. Raises UserError for a label, mask value or depth that cannot be.
    """
    names = names or {}
    targets = Targets()
    seen = {split: _Seen.of(source, names.get(split, NAMES.get(split, split))) for split, source in sources.items()}
    fit = seen.pop(FIT, None)
    if fit is None:
        return targets
    source = sources[FIT]
    for split, other in seen.items():
        if not fit.fields and not other.fields:
            targets.remarks.append(
                f"not measured: any {split}/ score, because the {other.name} have no labels or masks"
            )
    for what, classes in (("label", source.classes), ("mask", source.mask_classes)):
        _compare(what, classes, fit, seen, targets)
    for split, other in seen.items():
        for what in sorted(fit.fields - other.fields):
            _cannot(targets, [split], what, f"the {other.name} have no {what}s")
    for what in sorted(set().union(*(other.fields for other in seen.values())) - fit.fields):
        having = [split for split, other in seen.items() if what in other.fields]
        _cannot(targets, having, what, f"the {fit.name} have no {what}s to fit a probe on")
    return targets


def _compare(what: str, classes: Sequence[str], fit: _Seen, others: Mapping[str, _Seen], targets: Targets) -> None:
    if what not in fit.fields:
        return
    having = {split: other for split, other in others.items() if what in other.fields}
    present = fit.classes[what]
    if len(present) < 2 and not fit.trusted:
        _cannot(targets, list(having), what, _too_few(what, classes, fit))
        return
    for split, other in having.items():
        if not other.classes[what] and not other.trusted:
            _cannot(targets, [split], what, f"every pixel of the masks of the {other.name} is unknown (255)")
    for each in (fit, *having.values()):
        absent = [name for i, name in enumerate(classes) if i not in each.classes[what]]
        if absent and each.classes[what] and not each.trusted and each.complete(what):
            targets.remarks.append(_absence(what, absent, len(classes), each, fitted=each is fit))


def _too_few(what: str, classes: Sequence[str], fit: _Seen) -> str:
    present = fit.classes[what]
    if what == "label":
        only = printable(classes[next(iter(present))], 60) if present else "none"
        advice = f"; if that is no class, give the folder itself as the folder of images, FOLDER/{only}"
        folder = fit.from_folders and len(classes) == 1
        return f"all {fit.name} are of one class, {only!r}{advice if folder else ''}"
    if not present:
        return f"every pixel of the masks of the {fit.name} is unknown (255)"
    only = printable(classes[next(iter(present))], 60)
    hint = " and the rest unknown: 255 stands for no class, so write a class as its own number" if fit.unknown else ""
    return f"the masks of the {fit.name} hold one class only, {only!r}{hint}"


def _absence(what: str, absent: Sequence[str], count: int, seen: _Seen, *, fitted: bool) -> str:
    named = ", ".join(repr(printable(name, 60)) for name in absent[:_NAMED]) + (", ..." if len(absent) > _NAMED else "")
    effect = "never predicted; raise evaluation.fit_images, or give images of them"
    if not fitted:
        effect = "nothing there can be right" if what == "label" else "left out of miou, or 0 where guessed"
    kind = "classes" if what == "label" else "mask classes"
    return f"{len(absent)} of {count} {kind} do not occur in the {seen.name} ({effect}): {named}"


def _cannot(targets: Targets, splits: Sequence[str], what: str, why: str) -> None:
    metrics = [f"{split}/{name}" for split in splits for name in probed(what)]
    fresh = [name for name in metrics if name not in targets.unmeasured]
    targets.unmeasured |= dict.fromkeys(fresh, why)
    if fresh:
        targets.remarks.append(f"not measured: {', '.join(fresh)}, because {why}")


@dataclass
class _Seen:
    """The classes that a set holds, as far as it was looked at."""

    name: str
    fields: frozenset[str]
    trusted: bool
    """Built in: known to fit."""
    from_folders: bool
    classes: dict[str, set[int]]
    """Of "label" and "mask"."""
    unknown: bool = False
    """Whether some pixel of a mask is of no class."""
    partly: frozenset[str] = frozenset()
    """What was read of some samples only."""

    @classmethod
    def of(cls, source: Source, name: str) -> _Seen:
        base = _base(source)
        trusted = isinstance(base, Scenes)
        seen = cls(name, source.fields, trusted, not isinstance(base, WrappedDataset), {"label": set(), "mask": set()})
        if trusted or not source.fields:
            return seen
        labels = known_labels(source) if "label" in source.fields else None
        if labels is not None:
            seen._label(enumerate(labels), len(source.classes))
        sampled = frozenset(source.fields) - ({"label"} if labels is not None else set())
        if sampled:
            seen._sample(source, sampled)
        return seen

    def complete(self, what: str) -> bool:
        return what not in self.partly

    def _sample(self, source: Source, fields: frozenset[str]) -> None:
        places = evenly_placed(len(source), _AT_MOST)
        # Spread over the set first, then what lies between.
        order = dict.fromkeys([*evenly_placed(len(source), _LOOKED_AT), *places])
        read = 0
        for index in order:
            if read >= _LOOKED_AT and all(len(self.classes[what]) > 1 for what in fields & {"label", "mask"}):
                break
            self._one(source, index, fields)
            read += 1
        self.partly = fields if read < len(source) else frozenset()

    def _one(self, source: Source, index: int, fields: frozenset[str]) -> None:
        if fields == {"mask"} and (mask := _mask_alone(source, index)) is not None:
            self._mask(mask, None, index, len(source.mask_classes))
            return
        sample = source[index]
        if "label" in fields:
            self._label([(index, sample["label"])], len(source.classes))
        if "mask" in fields:
            self._mask(sample["mask"], sample["image"].shape[1:], index, len(source.mask_classes))
        if "depth" in fields and not torch.isfinite(sample["depth"]).all():
            raise UserError(
                f"{self.name}: the depth of image {index} is not finite everywhere. Replace such values by 0, which "
                "depth_delta1 leaves out."
            )

    def _label(self, labels: Iterable[tuple[int, int]], count: int) -> None:
        for index, label in labels:
            if not 0 <= label < count:
                raise UserError(label_error(self.name, index, label, count))
            self.classes["label"].add(label)

    def _mask(self, mask: torch.Tensor, size: Any, index: int, count: int) -> None:
        if size is not None and (mask.ndim != 2 or mask.shape != size):
            raise UserError(
                f"{self.name}: the mask of image {index} has the shape {tuple(mask.shape)}. Give one of its image's "
                f"height and width, {tuple(size)}."
            )
        values = set(mask.unique().tolist())
        wrong = wrong_in_mask(values, count)
        if wrong is not None:
            raise UserError(mask_error(self.name, index, wrong, count))
        self.unknown |= not values.isdisjoint(UNKNOWN)
        self.classes["mask"] |= {int(value) for value in values - set(UNKNOWN)}


def wrong_in_mask(values: Iterable[Any], count: int) -> Any | None:
    """One of the mask values that is neither a class of `count` nor unknown; None where all fit."""
    return next((v for v in sorted(values) if v not in UNKNOWN and not (0 <= v < count and v == int(v))), None)


def label_error(where: str, index: int, label: int, count: int) -> str:
    """The line for a label that is no class."""
    if not count:
        return f"{where}: the label of image {index} is {label}, and no class is named. Give labels from 0 on, or none."
    return (
        f"{where}: the label of image {index} is {label}. Allowed: 0 to {count - 1} ({count} classes are named). Mend "
        "it, or leave labels out of a set that has none."
    )


def mask_error(where: str, index: int, value: Any, count: int) -> str:
    """The line for a mask value that is no class."""
    return (
        f"{where}: the mask of image {index} contains the value {value}. Allowed: 0 to {count - 1} ({count} classes "
        "are named), and 255 for unknown."
    )


def known_labels(source: Source) -> list[int] | None:
    """The labels of all samples, where they can be had without reading images; None elsewhere."""
    if isinstance(source, Subset):
        inner = known_labels(source.source)
        return None if inner is None else [inner[i] for i in source.indices]
    if not isinstance(source, WrappedDataset):
        labels = getattr(source, "labels", None)
        if labels is None:
            labels = getattr(getattr(source, "images", None), "labels", None)
        return list(labels) if isinstance(labels, Sequence) and len(labels) == len(source) else None
    labels = labels_of(source.dataset)
    # An attribute may mean something else than what the items hold.
    if labels is None or any(labels[i] != source[i]["label"] for i in evenly_placed(len(source), 3)):
        return None
    return [int(label) for label in labels]


def _mask_alone(source: Source, index: int) -> torch.Tensor | None:
    if isinstance(source, Subset):
        return _mask_alone(source.source, source.indices[index])
    read = getattr(source, "mask", None)
    mask: torch.Tensor | None = read(index) if callable(read) else None
    return mask


def _base(source: Source) -> Source:
    return _base(source.source) if isinstance(source, Subset) else source
