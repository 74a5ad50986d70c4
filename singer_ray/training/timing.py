"""How long a run's parts take on this machine, from a few steps of a throwaway student."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from singer_ray.config import Config
    from singer_ray.training.context import TrainContext

PREFIT_STEPS, WARM_UP, MOST_STEPS, ENOUGH = 2, 1, 10, 0.5
"""Steps of the refiner alone, steps before the clock counts, steps that it counts at most, and seconds that suffice."""
FINAL = 2.5
"""The report of the last epoch takes this many times a validation: three sets, read before and after the norm."""


@dataclass(frozen=True)
class StepTimes:
    """Seconds that the parts of a run take. Light to carry: no torch."""

    start: float
    """From nothing to the first step: building, observing, fitting the refiner alone."""
    step: float
    """A step: its batch, the teacher's pass, losses, gradients, update."""
    evaluation: float
    """A validation; 0 where nothing can be scored."""
    steps_per_epoch: int
    evaluate_every: int
    """Epochs between validations."""

    @property
    def epoch(self) -> float:
        """An epoch with its share of validation."""
        return self.steps_per_epoch * self.step + self.evaluation / self.evaluate_every

    @property
    def final(self) -> float:
        """What the last epoch's report takes beyond that of another epoch."""
        return self.evaluation * (FINAL - 1 / self.evaluate_every)

    @classmethod
    def mean(cls, hosts: Sequence[StepTimes]) -> StepTimes:
        """Of several hosts, timed at the same time so that each had the machine that trials will have."""
        parts = ("start", "step", "evaluation")
        means = {name: sum(getattr(times, name) for times in hosts) / len(hosts) for name in parts}
        return cls(**means, steps_per_epoch=hosts[0].steps_per_epoch, evaluate_every=hosts[0].evaluate_every)


def timing(context: TrainContext, config: Config, *, world: int = 1) -> StepTimes:
    """Times a throwaway trainer of `config` in its context; `world` is the number of workers that share a batch.

    The context is as if this had not been: a trainer and a loader have generators of their own, and the global ones
    are put back. Raises UserError where `config` cannot be built.
    """
    import torch

    from singer_ray.training.trainer import StudentTrainer

    own = config.override({"method.prefit.steps": min(PREFIT_STEPS, config.method.prefit_steps)})
    devices = [context.device] if context.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        clock = _Clock(context.device)
        trainer = StudentTrainer(context, own, world=1)
        trainer.observe()
        start = clock.lap()
        trainer.prefit()
        prefit = clock.lap()
        if trainer.prefit_steps:
            prefit *= config.method.prefit_steps / trainer.prefit_steps
        trainer.start()
        start += prefit + clock.lap()
        batches = context.batches(batch_size=config.train.batch_size, world=world, seed=config.seed)
        laps: list[float] = []
        while len(laps) < WARM_UP + MOST_STEPS and sum(laps[WARM_UP:]) < ENOUGH:
            pixels = context.pixels(next(batches))
            trainer.step(pixels, context.teacher_pass(trainer.teacher, pixels, own.train.precision))
            laps.append(clock.lap())
        step = sum(laps[WARM_UP:]) / len(laps[WARM_UP:])
        clock.lap()
        scored = context.suite.score(trainer.reader(), ["val"])
        evaluation = clock.lap() if scored else 0.0
    return StepTimes(start, step, evaluation, trainer.steps_per_epoch, config.evaluation.every)


class _Clock:
    """Seconds between calls; waits for a GPU, whose work is only queued when a call returns."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.last = self._now()

    def lap(self) -> float:
        before, self.last = self.last, self._now()
        return self.last - before

    def _now(self) -> float:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
