"""What a person should know of the images before anything is trained on them, in lines."""

from __future__ import annotations

from collections.abc import Mapping

from singer_ray.data.overlap import overlap_remark
from singer_ray.data.source import Source, Subset, remarks_of
from singer_ray.data.targets import FIT, NAMES, Targets


def data_remarks(probes: Mapping[str, Source], targets: Targets, train: Source | None = None) -> list[str]:
    """Each source's own remarks, those of the targets, and the images that a scored set shares with a training set.

    `probes` are what scores are made of ("train" is what the probes are fitted on, "val" and "test" are scored);
    `train` is what the student learns from, where that is another set or more of it.
    """
    whole = {split: source.source if isinstance(source, Subset) else source for split, source in probes.items()}
    sources = [*([train] if train is not None else []), *whole.values()]
    lines = [line for source in sources for line in remarks_of(source)] + targets.remarks
    trained_on = [] if train is None else [(train, "training images")]
    fit = whole.get(FIT)
    if fit is not None and fit is not train:
        trained_on.append((fit, "training images of the probes" if trained_on else "training images"))
    for split in [name for name in ("val", "test") if name in whole]:
        for source, what in trained_on:
            line = overlap_remark(NAMES[split], whole[split], source, what)
            lines += [line] if line else []
    return list(dict.fromkeys(lines))
