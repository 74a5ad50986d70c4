"""Batches in an order that depends on the seed and the step alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from singer_ray.data.processes import LoaderContext, NotSendable, Portable
from singer_ray.data.source import Sample, Source, image_of
from singer_ray.data.views import EvaluationView, TrainingView
from singer_ray.errors import UserError, printable

Batch = dict[str, torch.Tensor]


def training_batches(
    source: Source,
    view: TrainingView,
    *,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    annotations: bool = False,
) -> Iterator[Batch]:
    """Endless batches from `first_step` on; rank r of `world` gets the r-th equal part of each.

    Sample number g of a run (g = step * batch_size + place) is image `permutation(seed, g // n)[g % n]` in its
    (g // n)-th view. `image` is uint8 [batch_size / world, 3, size, size]; labels, masks and depth come along
    only with `annotations`, since distillation needs none of them.
    """
    order = _Order(len(source), batch_size, seed, first_step, rank, world)
    return _batches(_loader(_TrainingSamples(source, view, annotations), workers, batch_sampler=order))


def evaluation_batches(source: Source, view: EvaluationView, *, batch_size: int, workers: int = 0) -> Iterator[Batch]:
    """Every sample once, in order, with all its annotations."""
    return _batches(_loader(_EvaluationSamples(source, view), workers, batch_size=batch_size))


def _loader(samples: Dataset[Any], workers: int, **batching: Any) -> DataLoader[Any]:
    # Workers are spawned: a fork of a process that holds Ray's or CUDA's threads can hang.
    context = LoaderContext() if workers else None
    return _PatientLoader(
        Portable(samples) if workers else samples,
        num_workers=workers,
        collate_fn=_collated,
        multiprocessing_context=context,
        generator=torch.Generator(),  # its own: it would otherwise draw from the global one
        pin_memory=torch.cuda.is_available(),
        **batching,
    )


@dataclass(frozen=True)
class _Refused:
    """A UserError on its way out of a loader process: as an exception it would arrive as a traceback in a text."""

    message: str


def _batches(loader: DataLoader[Any]) -> Iterator[Batch]:
    """What the loader gives, from now on; a UserError raised in its processes is raised here as it was."""
    return map(_accepted, iter(loader))


def _accepted(batch: Batch | _Refused) -> Batch:
    if isinstance(batch, _Refused):
        raise UserError(batch.message)
    return batch


def _collated(samples: list[Any]) -> Any:
    refused = next((sample for sample in samples if isinstance(sample, _Refused)), None)
    return refused or default_collate(samples)


class _PatientLoader(DataLoader[Any]):
    """A DataLoader that reads by itself what its processes cannot be given, and says so once."""

    def __iter__(self) -> Any:
        try:
            return super().__iter__()
        except NotSendable as error:
            source = self.dataset.content.source  # type: ignore[attr-defined]
            kind = type(getattr(source, "dataset", source)).__name__
            if kind not in _SAID:
                _SAID.add(kind)
                print(
                    f"data.loader_workers: {kind} cannot be sent to loader processes ({printable(error)}), so images "
                    "are read without them. Open files and connections in __getitem__, not in __init__.",
                    file=sys.stderr,
                    flush=True,
                )
            batching = {"batch_size": self.batch_size} if self.batch_size else {"batch_sampler": self.batch_sampler}
            return iter(_loader(self.dataset.content, 0, **batching))  # type: ignore[attr-defined]


_SAID: set[str] = set()
"""Data sets that are known not to be sendable."""


class _Order(Sampler[list[tuple[int, int]]]):
    """Endless lists of (image index, view number)."""

    def __init__(self, count: int, batch_size: int, seed: int, first_step: int, rank: int, world: int) -> None:
        if batch_size % world:
            raise ValueError(f"a batch of {batch_size} cannot be divided among {world} workers")
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.first_step, self.rank, self.share = first_step, rank, batch_size // world

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        step = self.first_step
        current, order = -1, np.empty(0, dtype=np.int64)
        while True:
            begin = step * self.batch_size + self.rank * self.share
            batch = []
            for place in range(begin, begin + self.share):
                number, offset = divmod(place, self.count)
                if number != current:
                    current, order = number, np.random.default_rng((self.seed, number)).permutation(self.count)
                batch.append((int(order[offset]), number))
            yield batch
            step += 1


class _TrainingSamples(Dataset[Sample | _Refused]):
    def __init__(self, source: Source, view: TrainingView, annotations: bool) -> None:
        self.source, self.view, self.annotations = source, view, annotations

    def __getitem__(self, key: tuple[int, int]) -> Sample | _Refused:
        index, number = key
        try:
            if self.annotations:
                return self.view.plain(self.source[index])
            return {"image": self.view(image_of(self.source, index), index, number)}
        except UserError as error:
            return _Refused(str(error))


class _EvaluationSamples(Dataset[Sample | _Refused]):
    def __init__(self, source: Source, view: EvaluationView) -> None:
        self.source, self.view = source, view

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample | _Refused:
        try:
            return self.view(self.source[index])
        except UserError as error:
            return _Refused(str(error))
