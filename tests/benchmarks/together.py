"""Several students trained on one teacher pass a step: the same numbers as one by one, in less time."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch

from singer_ray.config import Config
from singer_ray.training.loop import final_metrics
from singer_ray.training.member import Member
from singer_ray.training.workbench import Workbench


def train_together(bench: Workbench, configs: Mapping[str, Config], *, what: str) -> dict[str, dict[str, float]]:
    """Final metrics of a student for each configuration; they share teacher, images and seed, but not their length."""
    members = {name: Member.begin(bench, config) for name, config in configs.items()}
    teacher = bench.tapped_teacher(sorted({n for member in members.values() for n in member.teacher.layers}))
    first = next(iter(configs.values()))
    assert len({(c.seed, c.train.batch_size) for c in configs.values()}) == 1, "they must see the same batches"
    batches = bench.batches(batch_size=first.train.batch_size, seed=first.seed)
    begin, last = time.perf_counter(), max(member.steps for member in members.values())
    metrics: dict[str, dict[str, float]] = {}
    for step in range(last):
        pixels = bench.pixels(next(batches))
        taps = bench.teacher_pass(teacher, pixels)
        for name, member in members.items():
            if member.step_count >= member.steps:
                continue
            losses = member.step(pixels, taps)
            assert torch.isfinite(losses["loss"]), f"{name} diverged at step {step}"
            if member.step_count == member.steps:
                metrics[name] = final_metrics(member)
        if (step + 1) % 50 == 0:
            print(f"{what}: step {step + 1}/{last}, {time.perf_counter() - begin:.0f} s", flush=True)
    return metrics
