"""Several students trained on shared teacher passes: the same numbers as one by one, in less time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

from singer_ray.config import Config
from singer_ray.training.context import TrainContext
from singer_ray.training.loop import final_metrics
from singer_ray.training.sharing import SharedPasses
from singer_ray.training.trainer import StudentTrainer


def probe_scores(trainer: StudentTrainer) -> dict[str, float]:
    """What the probes read before the final norm: the quicker part of the final metrics."""
    return trainer.context.suite.score(trainer.reader(), trainer.context.suite.splits())


def train_together(
    context: TrainContext,
    configs: Mapping[str, Config],
    *,
    what: str,
    metrics_of: Callable[[StudentTrainer], dict[str, float]] = final_metrics,
) -> dict[str, dict[str, float]]:
    """Final metrics of a student for each configuration; they share teacher, images and seed, but not their length."""
    trainers = {name: StudentTrainer.begin(context, config) for name, config in configs.items()}
    passes = SharedPasses(trainers)
    first = next(iter(configs.values()))
    assert len({(c.seed, c.train.batch_size) for c in configs.values()}) == 1, "they must see the same batches"
    batches = context.batches(batch_size=first.train.batch_size, seed=first.seed)
    begin, last = time.perf_counter(), max(trainer.steps for trainer in trainers.values())
    metrics: dict[str, dict[str, float]] = {}
    for step in range(last):
        pixels = context.pixels(next(batches))
        features = passes(context, pixels)
        for name, trainer in trainers.items():
            if trainer.step_count >= trainer.steps:
                continue
            losses = trainer.step(pixels, features[name])
            assert torch.isfinite(losses["loss"]), f"{name} diverged at step {step}"
            if trainer.step_count == trainer.steps:
                metrics[name] = metrics_of(trainer)
        if (step + 1) % 50 == 0:
            print(f"{what}: step {step + 1}/{last}, {time.perf_counter() - begin:.0f} s", flush=True)
    return metrics
