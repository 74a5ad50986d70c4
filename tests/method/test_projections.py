"""method.projector: linear, mlp and orthogonal projections."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from singer_ray.config import Config
from singer_ray.method.projections import OrthogonalLinear, make_projection
from singer_ray.training import checkpoint
from singer_ray.training.context import TrainContext
from singer_ray.training.trainer import StudentTrainer


def test_the_default_is_torchs_own_layer_and_draws_as_it_did() -> None:
    torch.manual_seed(0)
    made: Any = make_projection("linear", 6, 10)
    torch.manual_seed(0)
    wanted = nn.Linear(6, 10)
    assert type(made) is nn.Linear
    assert torch.equal(made.weight, wanted.weight)
    assert torch.equal(made.bias, wanted.bias)


def test_mlp_has_two_layers_and_a_hidden_one_of_the_teachers_width() -> None:
    made: Any = make_projection("mlp", 6, 10)
    assert [tuple(p.shape) for p in made.parameters()] == [(10, 6), (10,), (10, 10), (10,)]
    tokens = torch.randn(2, 5, 6)
    hidden = nn.functional.gelu(tokens @ made[0].weight.T + made[0].bias)
    torch.testing.assert_close(made(tokens), hidden @ made[2].weight.T + made[2].bias)


@pytest.mark.parametrize(("width", "teacher_width"), [(6, 10), (10, 6), (8, 8)])
def test_orthogonal_keeps_distances_and_comes_back_to_it(width: int, teacher_width: int) -> None:
    torch.manual_seed(0)
    made = OrthogonalLinear(width, teacher_width)
    small = torch.eye(min(width, teacher_width))
    for moved in (0.0, 0.3, 5.0):
        with torch.no_grad():
            made.weight.add_(moved * torch.randn_like(made.weight))
        made.retract()
        weight = made.weight.detach()
        product = weight.T @ weight if teacher_width >= width else weight @ weight.T
        torch.testing.assert_close(product, small, atol=1e-5, rtol=0)
    before = made.weight.detach().clone()
    made.retract()  # it is where it should be
    torch.testing.assert_close(made.weight.detach(), before, atol=1e-6, rtol=0)
    if teacher_width >= width:
        one, other = torch.randn(2, width)
        torch.testing.assert_close((made(one) - made(other)).norm(), (one - other).norm())


@pytest.mark.slow
@pytest.mark.parametrize("projector", ["mlp", "orthogonal"])
def test_students_are_trained_through_every_kind_and_resume_to_the_same_bits(small: Config, projector: str) -> None:
    config = small.override({"method.projector": projector, "method.refiner": "layernorm"})
    context = TrainContext(config)

    def go(trainer: StudentTrainer, until: int) -> list[float]:
        batches = context.batches(batch_size=4, first_step=trainer.step_count, seed=0)
        losses = []
        while trainer.step_count < until:
            pixels = context.pixels(next(batches))
            losses.append(float(trainer.step(pixels, context.teacher_pass(trainer.teacher, pixels))["kd"]))
        return losses

    whole = StudentTrainer.begin(context, config)
    first = {name: p.clone() for name, p in whole.distiller.projections.named_parameters()}
    losses = go(whole, 6)
    assert losses[-1] < losses[0]
    for name, p in whole.distiller.projections.named_parameters():
        assert not torch.equal(p, first[name])
    if projector == "orthogonal":
        for projection in whole.distiller.projections.values():
            weight: Any = projection.weight
            torch.testing.assert_close(weight.T @ weight, torch.eye(48), atol=1e-5, rtol=0)
    cut = StudentTrainer.begin(context, config)
    go(cut, 3)
    saved = checkpoint.from_bytes(checkpoint.to_bytes(cut.state()))
    resumed = StudentTrainer.begin(context, config, saved)
    assert go(resumed, 6) == losses[3:]
    ends = [trainer.state()["distiller"] for trainer in (whole, resumed)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.slow
def test_orthogonal_stays_so_under_bfloat16(small: Config) -> None:
    config = small.override(
        {"method.projector": "orthogonal", "method.refiner": "none", "train.precision": "bfloat16", "train.ema": 0.9}
    )
    context = TrainContext(config)
    trainer = StudentTrainer.begin(context, config)
    pixels = context.pixels(next(context.batches(batch_size=4, seed=0)))
    for _ in range(2):
        trainer.step(pixels, context.teacher_pass(trainer.teacher, pixels, "bfloat16"))
    for distiller in (trainer.distiller, trainer.scored):
        weight: Any = distiller.projections["5"].weight
        torch.testing.assert_close(weight.T @ weight, torch.eye(48), atol=1e-5, rtol=0)
