"""The distillation loop, epoch by epoch. It knows nothing of Ray: launchers and hosts draw epochs from it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import distributed

from singer_ray.data.source import shuffled_subset
from singer_ray.errors import UserError
from singer_ray.evaluation.norms import norm_metrics, student_metrics
from singer_ray.evaluation.preservation import preservation_metrics
from singer_ray.training.trainer import StudentTrainer

NORM_IMAGES, PRESERVATION_IMAGES = 512, 64
EPOCH_METRICS = ("student/parameters", "student/artifact_share")
"""Besides the validation scores, what every evaluated epoch reports."""
Metrics = dict[str, float]


class DivergedError(UserError):
    """The loss is no longer a number."""


Heartbeat = Callable[[int, int, int, float], None]
"""Told after each step: epoch (1-based), step in it, steps an epoch, images a second."""


def epochs(trainer: StudentTrainer, heartbeat: Heartbeat = lambda *_: None) -> Iterator[Metrics]:
    """Trains to the end from wherever `trainer` stands, and yields after each epoch.

    Every yield has `epoch` (1-based), the epoch's mean losses under `train/`, `images_per_second` (evaluation apart)
    and `data_wait_share`; `val/...` and EPOCH_METRICS where the epoch is evaluated; and the last one all that
    `final_metrics` gives. Only rank 0 evaluates. Raises DivergedError.
    """
    context, config = trainer.context, trainer.config
    per_epoch = trainer.steps_per_epoch
    batches = context.batches(
        batch_size=config.train.batch_size,
        first_step=trainer.step_count,
        rank=trainer.rank,
        world=trainer.world,
        seed=config.seed,
        view_seed=config.seed,
    )
    while trainer.step_count < trainer.steps:
        begin, waited = time.perf_counter(), 0.0
        sums: dict[str, torch.Tensor] = {}
        epoch = trainer.step_count // per_epoch + 1
        for step in range(1, per_epoch + 1):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            pixels = context.pixels(batch)
            features = context.teacher_pass(trainer.teacher, pixels, config.train.precision)
            for name, loss in trainer.step(pixels, features).items():
                sums[name] = sums.get(name, 0) + loss.double()
            heartbeat(epoch, step, per_epoch, step * config.train.batch_size / (time.perf_counter() - begin))
        losses = {f"train/{name}": _over_ranks(total / per_epoch) for name, total in sums.items()}
        seconds = time.perf_counter() - begin
        if not all(map(math.isfinite, losses.values())):
            raise DivergedError(
                f"The loss is no longer finite in epoch {epoch} (train.lr {config.train.lr}). "
                "Lower train.lr, or set train.clip_grad."
            )
        metrics: Metrics = {
            "epoch": epoch,
            **losses,
            "images_per_second": per_epoch * config.train.batch_size / seconds,
            "data_wait_share": waited / seconds,
        }
        last = trainer.step_count >= trainer.steps
        if trainer.rank == 0 and last:
            metrics |= final_metrics(trainer)
        elif trainer.rank == 0 and epoch % config.evaluation.every == 0:
            metrics |= context.suite.score(trainer.reader(), ["val"]) | _of_student(trainer)
        yield metrics


def final_metrics(trainer: StudentTrainer) -> Metrics:
    """Validation and test scores before and after the final norm, the artifact figures, and what refinement changed."""
    context = trainer.context
    scores = context.suite.score(trainer.reader(), context.suite.splits(), after_norm=True)
    source = context.suite.sources.get("val", context.train)
    norms = norm_metrics(
        trainer.teacher,
        trainer.scored,
        context.normalize,
        shuffled_subset(source, NORM_IMAGES),
        context.evaluation_view,
        context.device,
        batch_size=context.config.evaluation.batch_size,
    )
    kept = preservation_metrics(
        trainer.teacher,
        trainer.scored,
        context.normalize,
        shuffled_subset(source, PRESERVATION_IMAGES),
        context.evaluation_view,
        context.device,
    )
    return scores | norms | kept | _of_student(trainer)


def _of_student(trainer: StudentTrainer) -> Metrics:
    """The metrics of EPOCH_METRICS, and the decay of the last step where the student is an average."""
    context = trainer.context
    source = context.suite.sources.get("val", context.train)
    metrics = student_metrics(
        trainer.scored,
        context.normalize,
        shuffled_subset(source, PRESERVATION_IMAGES),
        context.evaluation_view,
        context.device,
        ratio=context.config.evaluation.artifact_ratio,
    )
    if trainer.average is not None:
        metrics["student/ema_decay"] = trainer.average.decay_at(trainer.step_count)
    return metrics


def _over_ranks(value: torch.Tensor) -> float:
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        value = value.clone()
        distributed.all_reduce(value)
        value = value / distributed.get_world_size()
    return float(value)
