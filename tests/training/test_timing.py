"""The short timing before a search: what it says, and that it leaves no trace."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest
import torch

from singer_ray.config import Config, load_preset
from singer_ray.training.context import TrainContext
from singer_ray.training.loop import Metrics, epochs
from singer_ray.training.timing import StepTimes, timing
from singer_ray.training.trainer import StudentTrainer


def trained(context: TrainContext, config: Config) -> tuple[list[Metrics], torch.Tensor]:
    trainer = StudentTrainer.begin(context, config)
    metrics = [
        {k: v for k, v in m.items() if k not in ("images_per_second", "data_wait_share")} for m in epochs(trainer)
    ]
    return metrics, torch.cat([value.flatten() for value in trainer.state()["distiller"].values()])


@pytest.mark.long
def test_a_run_after_a_timing_is_the_same_to_the_bit(small: Config) -> None:
    config = small.override({"train.drop_path": 0.1, "data.augment": "crop_flip"})
    plain = trained(TrainContext(config), config)
    context = TrainContext(config)
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    timing(context, config)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (str(np.random.get_state()), random.getstate())
    timed = trained(context, config)
    assert timed[0] == plain[0]
    assert torch.equal(timed[1], plain[1])
    assert not any(p.requires_grad or p.grad is not None for p in context.teacher_model.parameters())


@pytest.mark.slow
def test_it_says_what_an_epoch_takes(small: Config) -> None:
    config = small.override({"train.steps_per_epoch": 20, "train.epochs": 1})
    context = TrainContext(config)
    times = timing(context, config)
    assert (times.steps_per_epoch, times.evaluate_every) == (20, 1)
    assert min(times.start, times.step, times.evaluation) > 0
    begin = time.perf_counter()
    trainer = StudentTrainer.begin(context, config)
    begun = time.perf_counter()
    for _ in epochs(trainer):
        pass
    took = time.perf_counter() - begun
    # Loose on purpose: other work on the machine may come between the two.
    assert 0.1 < (times.epoch + times.final) / took < 10
    assert times.start > 0.1 * (begun - begin)


def test_the_parts_of_an_epoch_add_up() -> None:
    one = StepTimes(4.0, 0.6, 6.0, steps_per_epoch=10, evaluate_every=3)
    assert one.epoch == pytest.approx(6 + 2)
    assert one.final == pytest.approx(6 * 2.5 - 2)
    other = StepTimes(start=2.0, step=1.2, evaluation=2.0, steps_per_epoch=10, evaluate_every=3)
    mean = StepTimes.mean([one, other])
    assert (mean.start, mean.evaluation, mean.steps_per_epoch, mean.evaluate_every) == (3.0, 4.0, 10, 3)
    assert mean.step == pytest.approx(0.9)


@pytest.mark.long
def test_a_share_of_the_batch_takes_less_and_the_refiner_is_scaled_to_its_steps(small: Config) -> None:
    config = small.override({"train.batch_size": 64, "method.prefit.steps": 3})
    context = TrainContext(config)
    longer = config.override({"method.prefit.steps": 3000})
    begin = time.perf_counter()
    times = timing(context, longer)
    assert times.start > 2 * (time.perf_counter() - begin)  # told, not done
    assert timing(context, config, world=8).step < timing(context, config).step


@pytest.mark.slow
def test_the_demonstration_is_timed_in_seconds() -> None:
    config = load_preset("demo")
    context = TrainContext(config)
    begin = time.process_time()  # of this process: what else the machine does is not the question
    timing(context, config)
    assert time.process_time() - begin < 12
