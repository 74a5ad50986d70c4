"""Relational distillation: its formula, what it is blind to, and its queue."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
import timm
import torch

from singer_ray.config import Config, MethodConfig
from singer_ray.method.distiller import Distiller
from singer_ray.method.refiners.relational.refiner import PooledQueue, Relational
from singer_ray.training.context import TrainContext
from singer_ray.training.trainer import StudentTrainer
from singer_ray.vision.tapped import Features, TappedViT

GRID, COUNT = (2, 3), 6


def network(width: int) -> TappedViT:
    make: Any = timm.create_model
    options = {"img_size": 16, "patch_size": 4, "embed_dim": width, "depth": 2, "num_heads": 2, "num_classes": 0}
    return TappedViT(make("vit_tiny_patch16_224", **options), [0, 1])


def relational(temperature: float = 0.07, queue: int = 0, student: int = 4) -> Relational:
    """On layer 0 of a teacher of width 8."""
    settings = {"refiner": "relational", "relational": {"temperature": temperature, "queue": queue}}
    made = Relational(network(8), (0,), MethodConfig.model_validate(settings))
    made.meet(network(student))
    return made


def tokens(seed: int, width: int, batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 1 + COUNT, width, generator=torch.Generator().manual_seed(seed))


def by_hand(wanted: np.ndarray, found: np.ndarray, temperature: float) -> float:
    """KL between the softmaxes of two rows of similarities."""
    p, q = (np.exp(row / temperature) / np.exp(row / temperature).sum() for row in (wanted, found))
    return float((p * np.log(p / q)).sum())


def unit(values: torch.Tensor) -> np.ndarray:
    return (values.double() / values.double().square().sum(-1, keepdim=True).sqrt()).numpy()


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_each_patch_is_compared_by_its_similarities_to_the_others(temperature: float) -> None:
    student, target = tokens(0, 4), tokens(1, 8)
    found = relational(temperature).distill_by_token(0, student, target, GRID)
    assert found.shape == (3, COUNT)  # the class token has no part in it
    for image in range(3):
        own, wanted = unit(student[image, 1:]), unit(target[image, 1:])
        for i in range(COUNT):
            others = [j for j in range(COUNT) if j != i]
            value = by_hand(wanted[others] @ wanted[i], own[others] @ own[i], temperature)
            assert found[image, i].item() == pytest.approx(value, rel=1e-4)
    assert relational(temperature).distill(0, student, target, GRID).item() == pytest.approx(found.mean().item())


def test_it_is_zero_at_equality_and_finite_at_zero_tokens_and_in_bfloat16() -> None:
    target, made = tokens(1, 8), relational(queue=5, student=8)
    assert made.distill(0, target, target, GRID).abs().item() < 1e-6
    assert made.distill(0, target, target, GRID).abs().item() < 1e-6  # now that the queue holds something
    student = tokens(0, 8)
    target[:, 2], student[:, 2:4], student[1] = 0, 0, 0
    student.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = made.distill(0, student.bfloat16(), target.bfloat16(), GRID)
    assert loss.dtype == torch.float32
    (gradient,) = torch.autograd.grad(loss, student)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("queue", [0, 5])
def test_the_length_of_any_teacher_token_means_nothing(queue: int) -> None:
    torch.manual_seed(0)
    teacher, images = network(8).eval().requires_grad_(False), torch.randn(4, 3, 16, 16)
    method = MethodConfig.model_validate({"refiner": "relational", "relational": {"queue": queue}})
    features, losses = teacher(images), []
    student = network(4)
    for lengths in (torch.ones(4, 17, 1), 10 ** (12 * torch.rand(4, 17, 1) - 6)):
        refiner = Relational(teacher, (0, 1), method)
        distiller = Distiller(student, (0, 1), teacher, (0, 1), refiner, ((4, 4), (4, 4)))
        distiller.calibrate({0: 1.0, 1: float(lengths.max())})
        scaled = Features({n: lengths * each for n, each in features.tokens.items()}, features.calls)
        losses.append([distiller(images, scaled, teacher.replay)["loss"].item() for _ in range(2)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][0] > 1e-3
    assert (losses[0][0] != losses[0][1]) == bool(queue)  # the second time the first batch is in the queue


@pytest.mark.parametrize(("size", "batches"), [(5, (2, 2, 2, 2)), (3, (4, 4)), (20, (4, 4))])
def test_the_queue_holds_the_latest_images_of_both_networks(size: int, batches: tuple[int, ...]) -> None:
    queue = PooledQueue(size, teacher_width=8, student_width=4)
    kept: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=size)
    for seed, batch in enumerate(batches):
        student, teacher = torch.randn(batch, 4), torch.randn(batch, 8)
        student, teacher = student / student.norm(dim=1, keepdim=True), teacher / teacher.norm(dim=1, keepdim=True)
        found = queue(student, teacher, 0.2)
        for n in range(batch):
            if not kept:
                assert found[n].item() == 0
                continue
            own, wanted = (np.array([pair[i] for pair in kept]) for i in (0, 1))
            value = by_hand(wanted @ teacher[n].numpy(), own @ student[n].numpy(), 0.2)
            assert found[n].item() == pytest.approx(value, rel=1e-3, abs=1e-6), seed
        kept.extend(zip(student.numpy(), teacher.numpy()))
    before = {name: value.clone() for name, value in queue.state_dict().items()}
    queue.eval()(student, teacher, 0.2)
    assert all(torch.equal(value, before[name]) for name, value in queue.state_dict().items())


@pytest.mark.slow
def test_its_student_learns_without_projections_and_starts_with_an_empty_queue(small: Config) -> None:
    config = small.override({"method.refiner": "relational", "method.relational.queue": 24})
    context = TrainContext(config)
    trainer = StudentTrainer.begin(context, config)
    distiller: Any = trainer.distiller
    assert trainer.optimizer is not None
    learning = {id(p) for group in trainer.optimizer.param_groups for p in group["params"] if p.requires_grad}
    assert not learning & {id(p) for p in distiller.projections.parameters()}
    assert all(queue.seen.item() == 0 for queue in distiller.refiner.queues.values())
    pixels = context.pixels(next(context.batches(batch_size=16, seed=0)))
    features = context.teacher_pass(trainer.teacher, pixels)
    losses = [float(trainer.step(pixels, features)["kd"]) for _ in range(12)]
    assert losses[-1] < 0.9 * losses[2]
    assert all(queue.seen.item() == 12 * 16 for queue in distiller.refiner.queues.values())
