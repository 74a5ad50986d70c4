"""train.ema: the moving average of a student's weights, which is what is scored and exported."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import distributed

from singer_ray.config import Config
from singer_ray.distillation import run_distillation
from singer_ray.errors import UserError
from singer_ray.training import checkpoint
from singer_ray.training.context import TrainContext
from singer_ray.training.trainer import StudentTrainer
from singer_ray.vision.networks import open_network
from singer_ray.vision.students import MisfitError, student_of

Weights = dict[str, torch.Tensor]


@pytest.fixture
def averaged(small: Config) -> Config:
    """Few images to be scored by; the preset's student."""
    return small.override({"train.ema": 0.9, "method.refiner": "layernorm", "method.projector": "orthogonal"})


def weights(trainer: StudentTrainer) -> Weights:
    return {name: weight.clone() for name, weight in trainer.distiller.state_dict().items()}


def steps(trainer: StudentTrainer, count: int, images: int = 4) -> list[Weights]:
    """The trained weights after each of `count` steps."""
    context = trainer.context
    batches = context.batches(batch_size=images, first_step=trainer.step_count, seed=0)
    found = []
    for _ in range(count):
        pixels = context.pixels(next(batches))
        trainer.step(pixels, context.teacher_pass(trainer.teacher, pixels))
        found.append(weights(trainer))
    return found


@pytest.mark.slow
def test_the_average_follows_the_weights_with_a_decay_that_rises(averaged: Config) -> None:
    """Written out for one weight: after step t it moves 1 - min(decay, 1 - t^(-2/3)) of the way."""
    trainer = StudentTrainer.begin(TrainContext(averaged), averaged)
    trained = steps(trainer, 34)
    name = "student.model.blocks.1.attn.qkv.weight"
    average, decays = torch.zeros_like(trained[0][name]), []
    for step, state in enumerate(trained, start=1):
        decays.append(min(0.9, 1 - step ** (-2 / 3)))
        average = decays[-1] * average + (1 - decays[-1]) * state[name]
    assert decays[0] == 0  # nothing of the initial weights is left
    assert decays[-1] == 0.9 > decays[1]
    assert trainer.average is not None
    assert trainer.average.decay_at(34) == 0.9
    torch.testing.assert_close(trainer.state()["average"][name], average, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(average, trained[-1][name], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_the_average_is_what_is_scored_and_shares_the_refiner(averaged: Config) -> None:
    trainer = StudentTrainer.begin(TrainContext(averaged), averaged)
    trained = steps(trainer, 3)[-1]
    scored, state = trainer.scored, trainer.state()["average"]
    assert scored.refiner is trainer.distiller.refiner
    assert all(torch.equal(state[name], weight) for name, weight in scored.state_dict().items() if name in state)
    assert torch.equal(trainer.reader().network.model.cls_token, state["student.model.cls_token"])
    assert trainer.reader().network.model is trainer.student_model is scored.student.model
    assert not torch.equal(trainer.student_model.cls_token, trained["student.model.cls_token"])
    for projection in scored.projections.values():  # the average of orthogonal projections is one again
        weight: Any = projection.weight
        torch.testing.assert_close(weight.T @ weight, torch.eye(48), atol=1e-5, rtol=0)
    exported, _ = student_of(averaged, checkpoint.from_bytes(checkpoint.to_bytes(trainer.state())))
    assert torch.equal(exported.cls_token, state["student.model.cls_token"])  # type: ignore[arg-type]


@pytest.mark.slow
def test_training_itself_does_not_depend_on_the_average(averaged: Config) -> None:
    plain = averaged.override({"train.ema": 0.0})
    with_it, without = (StudentTrainer.begin(TrainContext(config), config) for config in (averaged, plain))
    ends = [steps(trainer, 2)[-1] for trainer in (with_it, without)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert "average" not in without.state()
    assert without.scored is without.distiller


@pytest.mark.slow
def test_a_resumed_average_ends_with_the_same_bits(averaged: Config) -> None:
    context = TrainContext(averaged)
    whole, cut = (StudentTrainer.begin(context, averaged) for _ in range(2))
    steps(whole, 6)
    steps(cut, 3)
    resumed = StudentTrainer.begin(context, averaged, checkpoint.from_bytes(checkpoint.to_bytes(cut.state())))
    steps(resumed, 3)
    ends = [trainer.state() for trainer in (whole, resumed)]
    for part in ("distiller", "average"):
        assert all(torch.equal(ends[0][part][name], ends[1][part][name]) for name in ends[0][part])


def test_a_checkpoint_without_an_average_does_not_fit(averaged: Config) -> None:
    context = TrainContext(averaged)
    state = StudentTrainer.begin(context, averaged).state()
    del state["average"]
    with pytest.raises(MisfitError, match="has no average of the weights"):
        StudentTrainer.begin(context, averaged, state)
    with pytest.raises(MisfitError, match="has no average of the weights"):
        student_of(averaged, state)
    state["average"] = {"student.model.cls_token": "none"}
    with pytest.raises(UserError, match="its weights are no tensors"):
        checkpoint.from_bytes(checkpoint.to_bytes(state))


@pytest.mark.slow
def test_a_run_exports_its_average_with_its_registers_and_says_so(averaged: Config, tmp_path: Path) -> None:
    said: list[str] = []
    config = averaged.override({"train.epochs": 1, "student.registers": 2, "student.init": "copy"})
    done = run_distillation(config, tmp_path / "run", log=said.append)
    state = checkpoint.load(tmp_path / "run")
    written = safetensors.torch.load_file(done.student / "model.safetensors")
    assert set(written) == {n.removeprefix("student.model.") for n in state["average"] if n.startswith("student.")}
    assert all(torch.equal(weight, state["average"][f"student.model.{name}"]) for name, weight in written.items())
    assert not torch.equal(written["cls_token"], state["distiller"]["student.model.cls_token"])
    note = "scores and the exported student are those of the moving average of its weights (decay 0.9, in step t at"
    assert any(line.startswith(f"note: {note}") for line in said)
    assert any(line.startswith(note) for line in done.result["remarks"])
    assert done.metrics["student/ema_decay"] == pytest.approx(1 - 3 ** (-2 / 3))
    assert {"test/miou", "student/max_median_norm/2"} <= set(done.metrics)
    loaded: Any = timm.create_model(f"local-dir:{done.student}", pretrained=True).eval()
    assert loaded.num_prefix_tokens == open_network(str(tmp_path / "run")).tapped.prefix == 3
    assert written["reg_token"].abs().max() > 1e-4  # trained: they start at 1e-6
    card = (done.student / "README.md").read_text()
    assert "with 2 register tokens, from blocks and leading channels of the teacher." in card
    assert "projector orthogonal" in card
    assert "weights and scores are of their moving average, decay 0.9" in card


def one_of_two(rank: int, config: Config, meeting: str, folder: str) -> None:
    """A process that trains its half of each batch."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    trainer = StudentTrainer.begin(TrainContext(config), config, rank=rank, world=2)
    batches = trainer.context.batches(batch_size=16, rank=rank, world=2, seed=0)
    for _ in range(3):
        pixels = trainer.context.pixels(next(batches))
        trainer.step(pixels, trainer.context.teacher_pass(trainer.teacher, pixels))
    torch.save(trainer.state(), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.long
def test_processes_that_train_one_student_have_the_same_average(averaged: Config, tmp_path: Path) -> None:
    arguments = (averaged, str(tmp_path / "meeting"), str(tmp_path))
    start = multiprocessing.get_context("spawn").Process
    workers = [start(target=one_of_two, args=(rank, *arguments)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for part in ("distiller", "average"):
        assert all(torch.equal(first[part][name], second[part][name]) for name in first[part])
    alone = StudentTrainer.begin(TrainContext(averaged), averaged)
    steps(alone, 3, images=16)
    for name, weight in alone.state()["average"].items():
        torch.testing.assert_close(first["average"][name], weight, atol=2e-3, rtol=1e-2)
