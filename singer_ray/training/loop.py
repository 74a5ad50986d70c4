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
from singer_ray.training.member import Member

NORM_IMAGES, PRESERVATION_IMAGES = 512, 64
EPOCH_METRICS = ("student/parameters", "student/artifact_share")
"""Besides the validation scores, what every evaluated epoch reports."""
Metrics = dict[str, float]


class DivergedError(UserError):
    """The loss is no longer a number."""


Heartbeat = Callable[[int, int, int, float], None]
"""Told after each step: epoch (1-based), step in it, steps an epoch, images a second."""


def epochs(member: Member, heartbeat: Heartbeat = lambda *_: None) -> Iterator[Metrics]:
    """Trains to the end from wherever `member` stands, and yields after each epoch.

    Every yield has `epoch` (1-based), the epoch's mean losses under `train/`, `images_per_second` (evaluation apart)
    and `data_wait_share`; `val/...` and EPOCH_METRICS where the epoch is evaluated; and the last one all that
    `final_metrics` gives. Only rank 0 evaluates. Raises DivergedError.
    """
    bench, config = member.bench, member.config
    per_epoch = member.steps_per_epoch
    batches = bench.batches(
        batch_size=config.train.batch_size,
        first_step=member.step_count,
        rank=member.rank,
        world=member.world,
        seed=config.seed,
        view_seed=config.seed,
    )
    while member.step_count < member.steps:
        begin, waited = time.perf_counter(), 0.0
        sums: dict[str, torch.Tensor] = {}
        epoch = member.step_count // per_epoch + 1
        for step in range(1, per_epoch + 1):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            pixels = bench.pixels(batch)
            taps = member.teacher_pass(pixels)
            for name, loss in member.step(pixels, taps).items():
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
        last = member.step_count >= member.steps
        if member.rank == 0 and last:
            metrics |= final_metrics(member)
        elif member.rank == 0 and epoch % config.evaluation.every == 0:
            metrics |= bench.suite.score(member.reader(), ["val"]) | _of_student(member)
        yield metrics


def final_metrics(member: Member) -> Metrics:
    """Validation and test scores before and after the final norm, the artifact figures, and what refinement changed."""
    bench = member.bench
    scores = bench.suite.score(member.reader(), bench.suite.splits(), after_norm=True)
    source = bench.suite.sources.get("val", bench.train)
    norms = norm_metrics(
        member.teacher,
        member.distiller,
        bench.normalize,
        shuffled_subset(source, NORM_IMAGES),
        bench.evaluation_view,
        bench.device,
        batch_size=bench.config.evaluation.batch_size,
    )
    kept = preservation_metrics(
        member.teacher,
        member.distiller,
        bench.normalize,
        shuffled_subset(source, PRESERVATION_IMAGES),
        bench.evaluation_view,
        bench.device,
    )
    return scores | norms | kept | _of_student(member)


def _of_student(member: Member) -> Metrics:
    """The metrics of EPOCH_METRICS."""
    bench = member.bench
    source = bench.suite.sources.get("val", bench.train)
    return student_metrics(
        member.distiller,
        bench.normalize,
        shuffled_subset(source, PRESERVATION_IMAGES),
        bench.evaluation_view,
        bench.device,
        ratio=bench.config.evaluation.artifact_ratio,
    )


def _over_ranks(value: torch.Tensor) -> float:
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        value = value.clone()
        distributed.all_reduce(value)
        value = value / distributed.get_world_size()
    return float(value)
