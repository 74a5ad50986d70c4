"""What steps carry from one to the next, besides weights: running statistics of targets, and queues of features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn

from singer_ray.config import Config
from singer_ray.training import checkpoint
from singer_ray.training.context import TrainContext
from singer_ray.training.trainer import StudentTrainer
from singer_ray.vision.students import MisfitError

STANDARDIZE: dict[str, Any] = {
    "method.linearization": "attention_mlp",  # fitted before the targets are measured, and learning afterwards
    "method.freeze": False,
    "method.target": "standardize",
    "method.standardize.momentum": 0.2,
}
RELATIONAL: dict[str, Any] = {"method.refiner": "relational", "method.relational.queue": 40}
KINDS = pytest.mark.parametrize("settings", [STANDARDIZE, RELATIONAL], ids=["standardize", "queue"])
MORE = 3


def steps(trainer: StudentTrainer, count: int) -> list[float]:
    """The losses of the next steps."""
    size = trainer.config.train.batch_size
    batches = trainer.context.batches(
        batch_size=size, first_step=trainer.step_count, rank=trainer.rank, world=trainer.world, seed=0
    )
    losses = []
    for _ in range(count):
        pixels = trainer.context.pixels(next(batches))
        losses.append(float(trainer.step(pixels, trainer.context.teacher_pass(trainer.teacher, pixels))["loss"]))
    return losses


def carried(trainer: StudentTrainer) -> dict[str, torch.Tensor]:
    """The buffers that steps change."""
    named = trainer.distiller.named_buffers()
    return {name: value for name, value in named if name.startswith(("targets.", "refiner.queues."))}


@pytest.mark.long
@KINDS
def test_a_resumed_run_goes_on_with_the_same_bits(small: Config, settings: dict[str, Any]) -> None:
    context = TrainContext(small.override(settings))
    whole = StudentTrainer.begin(context, context.config)
    start = {name: value.clone() for name, value in carried(whole).items()}
    steps(whole, MORE)
    assert start
    assert all(not torch.equal(value, start[name]) for name, value in carried(whole).items())
    saved = checkpoint.to_bytes(whole.state())
    resumed = StudentTrainer.begin(context, context.config, checkpoint.from_bytes(saved))
    assert steps(resumed, MORE) == steps(whole, MORE)
    ends = [trainer.state()["distiller"] for trainer in (whole, resumed)]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


@pytest.mark.slow
def test_standardized_targets_start_from_the_fitted_refiner_and_the_calibration_images(small: Config) -> None:
    context = TrainContext(small.override({**STANDARDIZE, "method.prefit.steps": 20}))
    trainer = StudentTrainer.begin(context, context.config)
    batch = next(context.batches(batch_size=256, seed=0, view_seed=0))
    features = context.teacher_pass(trainer.teacher, context.pixels(batch))
    distiller = trainer.distiller.eval()
    for layer in distiller.layers:
        target = distiller._compared(layer, distiller.target(layer, features.tokens[layer])).detach()
        for part in (target[:, :1], target[:, 1:]):
            assert part.mean(dim=(0, 1)).abs().max() < 1e-3
            assert (part.var(dim=(0, 1), correction=0) - 1).abs().max() < 1e-2


@pytest.mark.slow
def test_other_targets_carry_nothing_so_that_older_checkpoints_fit(small: Config) -> None:
    context = TrainContext(small.override({"method.refiner": "none"}))
    plain = StudentTrainer.begin(context, context.config)
    normalized = context.config.override({"method.target": "layernorm", "method.distance": "smooth_l1"})
    state = plain.state()
    assert not carried(plain)
    assert StudentTrainer(context, normalized).distiller.state_dict().keys() == state["distiller"].keys()
    with pytest.raises(MisfitError):
        StudentTrainer.begin(context, context.config.override(STANDARDIZE), state)


@pytest.mark.long
def test_two_processes_carry_the_same_and_what_one_would(small: Config, tmp_path: Path) -> None:
    configs = [small.override({**settings, "train.clip_grad": 0.0}) for settings in (STANDARDIZE, RELATIONAL)]
    start: Any = spawn
    start(one_of_two, (configs, str(tmp_path)), nprocs=2)
    for config, first, second in zip(configs, *(torch.load(tmp_path / f"{rank}.pt") for rank in range(2))):
        alone = StudentTrainer.begin(TrainContext(config), config)
        losses = steps(alone, MORE)
        assert [(a + b) / 2 for a, b in zip(first["losses"], second["losses"])] == pytest.approx(losses, rel=1e-4)
        for name, value in carried(alone).items():
            assert torch.equal(first["carried"][name], second["carried"][name]), name
            assert torch.allclose(first["carried"][name], value, rtol=1e-3, atol=1e-4), name


def one_of_two(rank: int, configs: list[Config], folder: str) -> None:
    """A process of two that train together."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found = []
    for config in configs:
        trainer = StudentTrainer.begin(TrainContext(config), config, rank=rank, world=2)
        found.append({"losses": steps(trainer, MORE), "carried": carried(trainer)})
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()
