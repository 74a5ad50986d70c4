"""SiNGER's adapter and the distillation step around it."""

from __future__ import annotations

import pytest
import torch

from singer_ray.config import Config
from singer_ray.errors import UserError
from singer_ray.method.layers import map_by_depth
from singer_ray.training.context import TrainContext
from singer_ray.training.trainer import StudentTrainer
from singer_ray.vision.tapped import Features


@pytest.fixture
def context(small: Config) -> TrainContext:
    return TrainContext(small)


def pass_of(context: TrainContext, trainer: StudentTrainer) -> tuple[torch.Tensor, Features]:
    pixels = context.pixels(next(context.batches(batch_size=8, seed=0)))
    return pixels, context.teacher_pass(trainer.teacher, pixels)


def test_the_adapter_starts_as_the_identity(fitted: Config, context: TrainContext) -> None:
    trainer = StudentTrainer(context, fitted)
    trainer.observe()
    _, features = pass_of(context, trainer)
    refined, terms = trainer.distiller.refiner.refine(features, trainer.teacher.replay)
    for layer in trainer.distiller.layers:
        assert torch.equal(refined[layer], features.tokens[layer])
    assert terms["info"][1].item() == pytest.approx(0, abs=1e-10)
    assert terms["outlier"][1].item() > 1  # the planted artifacts are seen


def test_prefix_tokens_stay_and_patches_move(small: Config, context: TrainContext) -> None:
    trainer = StudentTrainer(context, small)
    trainer.observe()
    trainer.prefit()
    _, features = pass_of(context, trainer)
    refined, _ = trainer.distiller.refiner.refine(features, trainer.teacher.replay)
    assert refined.keys() == {3, 5}
    for layer, tokens in refined.items():
        assert torch.equal(tokens[:, :1], features.tokens[layer][:, :1])
        assert (tokens[:, 1:] - features.tokens[layer][:, 1:]).abs().max() > 0


@pytest.mark.slow
def test_prefit_suppresses_artifacts_and_keeps_the_gram_matrix(fitted: Config, context: TrainContext) -> None:
    config = fitted.override({"method.prefit.steps": 60, "method.prefit.batch_size": 16})
    trainer = StudentTrainer(context, config)
    trainer.observe()
    _, features = pass_of(context, trainer)
    before = trainer.distiller.refiner.refine(features, trainer.teacher.replay)[1]
    trainer.prefit()
    after = trainer.distiller.refiner.refine(features, trainer.teacher.replay)[1]
    assert after["outlier"][1] < 0.25 * before["outlier"][1]
    assert after["info"][1] < 0.1  # of two layers with Gram entries in -1 .. 1


@pytest.mark.slow
@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_strength_scales_what_the_student_learns(small: Config, context: TrainContext, strength: float) -> None:
    trainer = StudentTrainer(context, small.override({"method.strength": strength, "method.radial": False}))
    trainer.observe()
    trainer.prefit()
    _, features = pass_of(context, trainer)
    layer = trainer.distiller.layers[-1]
    original = features.tokens[layer]
    full = trainer.distiller.refiner(layer, original)
    assert torch.allclose(trainer.distiller.target(layer, original), original + strength * (full - original), atol=1e-4)


@pytest.mark.slow
def test_the_fit_does_not_depend_on_the_strength(fitted: Config, context: TrainContext) -> None:
    adapters = []
    for strength in (0.2, 1.0):
        trainer = StudentTrainer(context, fitted.override({"method.strength": strength}))
        trainer.observe()
        trainer.prefit()
        adapters.append(torch.cat([p.flatten() for p in trainer.distiller.refiner.parameters()]))
    assert torch.equal(*adapters)


@pytest.mark.parametrize("detach", [True, False])
def test_the_distillation_gradient_reaches_the_adapter_only_when_asked_to(
    fitted: Config, context: TrainContext, detach: bool
) -> None:
    trainer = StudentTrainer(context, fitted.override({"method.detach_target": detach}))
    trainer.observe()
    trainer.prefit()
    pixels, features = pass_of(context, trainer)
    losses = trainer.distiller(pixels, features, trainer.teacher.replay)
    adapter = next(trainer.distiller.refiner.parameters())
    (gradient,) = torch.autograd.grad(losses["kd"], [adapter], allow_unused=True)
    assert (gradient is None) == detach


def test_targets_of_all_layers_have_the_same_size(small: Config, context: TrainContext) -> None:
    trainer = StudentTrainer(context, small.override({"method.refiner": "none"}))
    trainer.observe()
    features = context.teacher_pass(trainer.teacher, context.pixels(next(context.batches(batch_size=128, seed=1))))
    assert trainer.distiller.layers == (3, 5)
    for layer in trainer.distiller.layers:
        norms = (features.tokens[layer][:, 1:] * trainer.distiller.scales[layer]).norm(dim=-1)
        assert norms.median().item() == pytest.approx(64**0.5, rel=0.05)


def test_refiner_none_has_nothing_to_learn_and_no_losses_of_its_own(small: Config, context: TrainContext) -> None:
    trainer = StudentTrainer(context, small.override({"method.refiner": "none"}))
    trainer.observe()
    pixels, features = pass_of(context, trainer)
    losses = trainer.distiller(pixels, features, trainer.teacher.replay)
    assert set(losses) == {"kd", "loss"}
    assert torch.equal(losses["kd"], losses["loss"])
    assert trainer.prefit() == {}


def test_a_student_on_another_grid_learns_on_the_teachers(small: Config, context: TrainContext) -> None:
    trainer = StudentTrainer(context, small.override({"student.patch_size": 8}))
    assert trainer.distiller.student_grid == (4, 4)
    trainer.observe()
    pixels, features = pass_of(context, trainer)
    assert torch.isfinite(trainer.distiller(pixels, features, trainer.teacher.replay)["loss"])


def test_rank_above_the_width_is_refused(small: Config, context: TrainContext) -> None:
    with pytest.raises(UserError, match=r"method.rank 65 .* width 64.*Allowed: 1 to 64"):
        StudentTrainer(context, small.override({"method.rank": 65}))


def test_patches_larger_than_the_image_are_refused(small: Config, context: TrainContext) -> None:
    with pytest.raises(UserError, match=r"patches of 64 pixels, more than data.image_size 32"):
        StudentTrainer(context, small.override({"student.patch_size": 64}))


@pytest.mark.parametrize(
    ("layers", "teacher", "student", "mapped"),
    [((3, 5), 6, 3, (1, 2)), ((8, 11), 12, 12, (8, 11)), ((17, 23), 24, 12, (8, 11)), ((5,), 6, 6, (5,))],
)
def test_layers_map_by_relative_depth(
    layers: tuple[int, ...], teacher: int, student: int, mapped: tuple[int, ...]
) -> None:
    assert map_by_depth(layers, teacher, student) == mapped
