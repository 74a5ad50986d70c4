"""Shares of the distillation loss and of its gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from singer_ray.analysis.gradient_bias import (
    fair_gradient_share,
    measure_bias,
    teacher_outliers,
    track_bias,
)
from singer_ray.config import Config
from singer_ray.method.distiller import Distiller
from singer_ray.training.context import TrainContext
from singer_ray.training.trainer import StudentTrainer
from singer_ray.vision.tapped import Features


def prepared(config: Config, **settings: Any) -> tuple[StudentTrainer, torch.Tensor, Features]:
    given = {name.replace("__", "."): value for name, value in settings.items()}
    context = TrainContext(config.override({"method.refiner": "none", **given}))
    trainer = StudentTrainer.begin(context, context.config)
    pixels = context.pixels(next(context.batches(batch_size=8, seed=0)))
    return trainer, pixels, context.teacher_pass(trainer.teacher, pixels)


def targets_of(distiller: Distiller, pixels: torch.Tensor) -> dict[int, torch.Tensor]:
    """Teacher tokens that the student matches exactly: one prefix token, then the patches, unscaled."""
    projections: Any = distiller.projections
    with torch.no_grad():
        student = distiller.student(pixels).tokens
        return {
            n: torch.cat(
                [
                    projections[str(n)](student[m][:, :1]) / distiller.scales[n],
                    distiller.projected(n, student[m]),
                ],
                dim=1,
            )
            for n, m in zip(distiller.layers, distiller.student_layers)
        }


@pytest.mark.slow
@pytest.mark.parametrize(("differs", "share"), [("outliers", 1.0), ("others", 0.0)])
def test_the_share_is_all_or_nothing_when_only_some_tokens_differ(small: Config, differs: str, share: float) -> None:
    trainer, pixels, _ = prepared(small)
    distiller = trainer.distiller.eval()
    targets = targets_of(distiller, pixels)
    chosen = torch.zeros(8, 64, dtype=torch.bool)
    chosen[:, 5:9] = True
    off = torch.cat([torch.zeros(8, 1, dtype=torch.bool), chosen if differs == "outliers" else ~chosen], dim=1)
    features = Features({n: target + 30.0 * off[..., None] for n, target in targets.items()})
    bias = measure_bias(distiller, pixels, features, dict.fromkeys(distiller.layers, chosen))
    assert bias.loss_share == pytest.approx(share, abs=1e-6)
    assert bias.gradient_share == pytest.approx(share, abs=1e-3)
    assert set(bias.layer_loss_shares) == {3, 5}
    assert bias.layer_loss_shares[5] == pytest.approx(share, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"method__loss__class_token": 5.0},
        {"method__target": "layernorm", "method__distance": "smooth_l1"},
        {"method__target": "standardize", "method__distance": "mixed", "method__loss__class_token": 0.0},
        {"method__refiner": "relational", "method__relational__queue": 0},
    ],
)
def test_token_losses_are_what_training_minimises(small: Config, settings: dict[str, Any]) -> None:
    trainer, pixels, features = prepared(small, **settings)
    trainer.distiller.eval()
    kd = trainer.distiller(pixels, features, trainer.teacher.replay)["kd"]
    by_token = trainer.distiller.token_losses(pixels, features)
    tokens = 65 if trainer.distiller.refiner.projects else 64  # class token and patches, or patches alone
    assert {n: tuple(loss.shape) for n, loss in by_token.items()} == {3: (8, tokens), 5: (8, tokens)}
    assert sum(float(loss.detach().mean()) for loss in by_token.values()) == pytest.approx(float(kd.detach()), rel=1e-5)


@pytest.mark.slow
def test_the_two_gradients_add_up_to_that_of_training(small: Config) -> None:
    trainer, pixels, features = prepared(small)
    outliers = teacher_outliers(features, trainer.distiller.layers, trainer.teacher.prefix, 4.0)
    bias = measure_bias(trainer.distiller, pixels, features, outliers)
    assert all(p.grad is None for p in trainer.distiller.parameters())  # measuring leaves no trace
    loss = trainer.distiller(pixels, features, trainer.teacher.replay)["kd"]
    trained = [p for p in trainer.distiller.parameters() if p.requires_grad]
    whole = torch.cat([g.flatten() for g in torch.autograd.grad(loss, trained)]).norm()
    everything = {n: torch.ones_like(mask) for n, mask in outliers.items()}
    nothing = {n: torch.zeros_like(mask) for n, mask in outliers.items()}
    none = measure_bias(trainer.distiller, pixels, features, nothing)
    assert (none.loss_share, none.gradient_share, none.cosine) == (0.0, 0.0, None)
    assert (
        0.5 < measure_bias(trainer.distiller, pixels, features, everything).loss_share < 1
    )  # the class token is the rest
    assert bias.cosine is not None
    # |a + r|^2 = |a|^2 + |r|^2 + 2 cos |a| |r| with |a| = g (|a| + |r|): one equation, so the total size follows.
    g, c = bias.gradient_share, bias.cosine
    assert 0 < g < 1
    total = float(whole) / (g**2 + (1 - g) ** 2 + 2 * c * g * (1 - g)) ** 0.5
    assert total >= float(whole) * 0.999


@pytest.mark.slow
def test_a_fitted_refiner_lowers_the_share_of_the_same_tokens(small: Config) -> None:
    config = small.override({"method.prefit.steps": 40, "method.prefit.batch_size": 16, "train.steps_per_epoch": 4})
    context = TrainContext(config)
    arms = {
        name: StudentTrainer.begin(context, config.override({"method.refiner": name})) for name in ("none", "singer")
    }
    students = [arm.distiller.student.state_dict() for arm in arms.values()]
    assert all(torch.equal(value, students[1][name]) for name, value in students[0].items())
    probe = context.pixels(next(context.batches(batch_size=32, seed=7)))
    track = list(track_bias(context, arms, probe, k=4.0, steps=4, every=3))
    assert [step for step, _ in track] == [0, 3, 4]
    start = track[0][1]
    assert start["none"].loss_share > 0.6
    assert start["none"].gradient_share > 0.4
    assert start["singer"].loss_share < 0.8 * start["none"].loss_share
    assert start["singer"].gradient_share < 0.75 * start["none"].gradient_share
    assert track[-1][1]["none"] != start["none"]  # the students have been trained meanwhile
    assert [arm.step_count for arm in arms.values()] == [4, 4]


def test_outliers_come_from_the_original_teacher(small: Config) -> None:
    context = TrainContext(small)
    teacher = StudentTrainer(context, small).teacher
    pixels = context.pixels(next(context.batches(batch_size=8, seed=0)))
    features = context.teacher_pass(teacher, pixels)
    mask = teacher_outliers(features, (3,), teacher.prefix, 4.0)[3]
    norms = features.tokens[3][:, teacher.prefix :].norm(dim=-1)
    assert 0 < int(mask.sum()) < mask.numel() / 4
    assert bool((norms[mask] > 4 * norms.median()).float().mean() > 0.9)


def test_the_fair_share_of_half_the_tokens_is_a_half() -> None:
    assert fair_gradient_share(0.5) == pytest.approx(0.5)
    assert fair_gradient_share(0.0) == 0.0
    assert 0.04 < fair_gradient_share(0.04) < 0.2
