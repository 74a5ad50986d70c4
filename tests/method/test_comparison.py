"""Targets and distances: each against its formula, worked out here in a few lines, and what it must not depend on."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import timm
import torch

from singer_ray.config import Config
from singer_ray.errors import UserError
from singer_ray.method.distances import Comparison
from singer_ray.method.distiller import Distiller
from singer_ray.method.refiners.registry import refiner_class
from singer_ray.method.targets import TARGETS, StandardizedTargets
from singer_ray.vision.tapped import TappedViT

PATCHES, DIM, BETA = 6, 5, 0.8
CASES: dict[str, dict[str, str]] = {
    **{name: {"method.refiner": name} for name in ("none", "vitkd", "clip", "layernorm", "quantile_clip")},
    **{v: {"method.refiner": "singer", "method.variant": v} for v in ("recommended", "paper", "official")},
    "relational": {"method.refiner": "relational"},
}
DISTANCES = ("mse", "smooth_l1", "cosine", "mixed")


def tokens(seed: int, batch: int = 3) -> torch.Tensor:
    """A class token and patches."""
    return 1.5 * torch.randn(batch, 1 + PATCHES, DIM, generator=torch.Generator().manual_seed(seed))


def by_hand(distance: str, student: np.ndarray, target: np.ndarray) -> float:
    """The distance of one token from its target."""
    if distance == "mse":
        return float(((student - target) ** 2).mean())
    if distance == "cosine":
        return float(1 - student @ target / np.sqrt(student @ student * (target @ target)))
    if distance == "smooth_l1":
        apart = np.abs(student - target)
        return float(np.where(apart < BETA, apart**2 / (2 * BETA), apart - BETA / 2).mean())
    return 0.9 * by_hand("cosine", student, target) + 0.1 * by_hand("smooth_l1", student, target)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("weight", [0.0, 1.0, 7.0])
def test_a_distance_is_its_formula_and_the_class_token_has_its_weight(distance: str, weight: float) -> None:
    student, target = tokens(0), tokens(1)
    comparison = Comparison(distance, BETA, weight)
    values = [
        [by_hand(distance, s, t) for s, t in zip(*image)] for image in zip(student.double().numpy(), target.numpy())
    ]
    wanted = np.average(values, axis=1, weights=[weight, *[1.0] * PATCHES]).mean()
    assert comparison.loss(student, target, PATCHES).item() == pytest.approx(wanted, rel=1e-5)
    by_token = comparison.by_token(student, target, PATCHES)
    assert by_token.shape == (3, 1 + PATCHES)
    assert by_token.mean().item() == pytest.approx(wanted, rel=1e-5)
    without = comparison.by_token(student[:, 1:], target[:, 1:], PATCHES)  # no class token: nothing to weigh
    assert torch.allclose(without, torch.tensor(values)[:, 1:].float(), rtol=1e-4)


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_distance_is_zero_at_equality_and_has_bounded_gradients_at_zero_tokens_and_in_bfloat16(distance: str) -> None:
    target = tokens(0)
    assert Comparison(distance, BETA, 3.0).loss(target, target, PATCHES).abs().item() < 1e-6
    target[:, 2], target[0, 0] = 0, 0
    student = tokens(1)
    student[:, 2:4], student[1] = 0, 0
    student.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = Comparison(distance, BETA, 3.0).loss(student.bfloat16(), target.bfloat16(), PATCHES)
    assert loss.dtype == torch.float32
    (gradient,) = torch.autograd.grad(loss, student)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() < 1e4


def test_cosine_sees_no_lengths() -> None:
    student, target = tokens(0), tokens(1)
    lengths = torch.rand(2, 3, 1 + PATCHES, 1) + 0.1
    comparison = Comparison("cosine")
    scaled = comparison.by_token(lengths[0] * student, lengths[1] * target, PATCHES)
    assert torch.allclose(scaled, comparison.by_token(student, target, PATCHES), atol=1e-6)


def test_layernorm_is_its_formula_and_sees_neither_length_nor_mean_of_a_token() -> None:
    targets, target = TARGETS["layernorm"]((3,), DIM, 1, 0.0), tokens(0)
    values = target.double().numpy()
    wanted = (values - values.mean(-1, keepdims=True)) / values.std(-1, keepdims=True)
    assert np.allclose(targets(3, target), wanted, atol=1e-4)
    moved = torch.rand(3, 1 + PATCHES, 1) * 9 + 1
    assert torch.allclose(targets(3, moved * target - 4 * moved), targets(3, target), atol=1e-4)


@pytest.mark.parametrize("classes", [0, 1])
def test_standardize_follows_class_token_and_patches_apart(classes: int) -> None:
    """The moments are those of the mixture: of what came before, and of the batch with its share."""
    share = 0.25
    targets = StandardizedTargets((3,), DIM, classes, share)
    channels = torch.tensor([1.0, 5, 0.1, 2, 1])
    first, second = (channels * tokens(seed, 40)[:, 1 - classes :] + 3 for seed in (0, 1))
    targets.measure(3, first)
    parts = [slice(0, classes), slice(classes, None)] if classes else [slice(None)]
    moments = [(v.mean((0, 1)), v.var((0, 1))) for v in (first.double().numpy()[:, part] for part in parts)]

    def standardized(values: torch.Tensor) -> np.ndarray:
        return np.concatenate(
            [(values.numpy()[:, part] - mean) / np.sqrt(var) for part, (mean, var) in zip(parts, moments)], axis=1
        )

    assert np.allclose(targets(3, second), standardized(second), atol=1e-4)  # by what came before it
    for n, part in enumerate(parts):
        old_mean, old_var = moments[n]
        values = second.double().numpy()[:, part]
        mean = (1 - share) * old_mean + share * values.mean((0, 1))
        square = (1 - share) * (old_var + old_mean**2) + share * (values**2).mean((0, 1))
        moments[n] = mean, square - mean**2
    assert np.allclose(targets(3, first), standardized(first), atol=1e-4)
    before = {name: value.clone() for name, value in targets.state_dict().items()}
    targets.eval()(3, second)
    assert all(torch.equal(value, before[name]) for name, value in targets.state_dict().items())
    patches = first[:, classes:]
    assert torch.allclose(targets.undone(3, targets(3, first)[:, classes:]), patches, atol=1e-4)


def test_standardize_leaves_scale_and_mean_of_a_channel_out_and_a_dead_channel_small() -> None:
    target, channels = tokens(0, 20), torch.tensor([1.0, 100, 0.1, 2, 0])
    plain, moved = (TARGETS["standardize"]((3,), DIM, 1, 0.0) for _ in range(2))
    plain.measure(3, target)
    moved.measure(3, target * channels + 7)
    found = moved(3, target * channels + 7)
    assert torch.allclose(found[..., :-1], plain(3, target)[..., :-1], atol=1e-3)
    assert found[..., -1].abs().max() < 1e-2


@pytest.mark.parametrize("kind", TARGETS)
def test_targets_have_gradients_where_the_refiner_learns_from_them(kind: str) -> None:
    targets = TARGETS[kind]((3,), DIM, 1, 0.1)
    targets.measure(3, tokens(1))
    target = tokens(0)
    target[0, 1] = 0
    target.requires_grad_()
    (gradient,) = torch.autograd.grad((targets(3, target) * tokens(2)).sum(), target)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0


def network(width: int, depth: int, layers: list[int]) -> TappedViT:
    make: Any = timm.create_model
    return TappedViT(
        make(
            "vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=width, depth=depth, num_heads=2, num_classes=0
        ),
        layers,
    )


def refused(case: str, target: str, distance: str) -> bool:
    """What makes no sense together."""
    if case in ("vitkd", "official", "relational"):  # losses of their own
        return (target, distance) != ("plain", "mse")
    blind = target == "layernorm" or (target, distance) == ("plain", "cosine")
    return (case == "layernorm" and target == "layernorm") or (case in ("clip", "quantile_clip") and blind)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_combination_trains_or_is_refused(case: str) -> None:
    torch.manual_seed(0)
    teacher, images = network(8, 3, [0, 1, 2]).eval().requires_grad_(False), torch.randn(4, 3, 16, 16)
    features, grids = teacher(images), (teacher.grid(16), teacher.grid(16))
    for target, distance, gram in itertools.product(TARGETS, DISTANCES, (0.0, 2.0)):
        given = {"method.target": target, "method.distance": distance, "method.rank": 3, "method.loss.gram": gram}
        if refused(case, target, distance):
            with pytest.raises(UserError, match=rf"method\.(target|distance) is '({target}|{distance})'.*Use "):
                Config().override({**CASES[case], **given})
            continue
        method = Config().override({**CASES[case], **given}).method
        kind = refiner_class(method)
        distiller = Distiller(
            network(6, 2, [0, 1]),
            (0, 1),
            teacher,
            (0, 1),
            kind(teacher, (0, 1), method),
            grids,
            detach=not kind.joint,
            target=target,
            momentum=0.1,
            gram_weight=gram,
        )
        distiller.calibrate({0: 2.0, 1: 3.0})
        distiller.measure_targets(features)
        optimizer = torch.optim.AdamW([p for p in distiller.parameters() if p.requires_grad], lr=1e-2)
        before = [p.clone() for p in distiller.student.parameters()]
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16):
                losses = distiller(images, features, teacher.replay)
            optimizer.zero_grad()
            losses["loss"].backward()
            optimizer.step()
        assert torch.isfinite(losses["loss"]), (target, distance, gram)
        assert ("gram" in losses) == (gram > 0)
        assert any(not torch.equal(a, b) for a, b in zip(before, distiller.student.parameters()))
        assert all(torch.isfinite(p).all() for p in distiller.parameters())


@pytest.mark.parametrize("patch", [4, 8])
def test_the_gram_loss_compares_the_students_own_patches_with_the_target(patch: int) -> None:
    torch.manual_seed(0)
    teacher, images = network(8, 3, [0, 1]).eval().requires_grad_(False), torch.randn(4, 3, 16, 16)
    make: Any = timm.create_model
    small = make(
        "vit_tiny_patch16_224", img_size=16, patch_size=patch, embed_dim=6, depth=2, num_heads=2, num_classes=0
    )
    student, features = TappedViT(small, [0, 1]), teacher(images)
    method = Config().override({"method.refiner": "layernorm"}).method
    refiner = refiner_class(method)(teacher, (0, 1), method)
    distiller = Distiller(
        student, (0, 1), teacher, (0, 1), refiner, (teacher.grid(16), student.grid(16)), gram_weight=3.0
    )
    distiller.calibrate({0: 2.0, 1: 3.0})
    losses = distiller(images, features, teacher.replay)
    wanted = 0.0
    for layer, shown in student(images).tokens.items():
        own = shown[:, 1:]
        if patch == 8:  # 2 x 2 patches on a grid of 4 x 4
            plane = own.mT.unflatten(2, (2, 2))
            own = torch.nn.functional.interpolate(plane, (4, 4), mode="bilinear").flatten(2).mT
        target = refiner(layer, features.tokens[layer])[:, 1:]
        for a, b in zip(own, target):
            unit = [x.double() / x.double().square().sum(1, keepdim=True).sqrt() for x in (a, b)]
            wanted += float((unit[0] @ unit[0].T - unit[1] @ unit[1].T).square().mean().detach()) / len(images)
    assert losses["gram"].item() == pytest.approx(wanted, rel=1e-4)
    assert losses["loss"].item() == pytest.approx(losses["kd"].item() + 3 * wanted, rel=1e-4)
    projections = list(distiller.projections.parameters())
    assert set(torch.autograd.grad(losses["gram"], projections, allow_unused=True)) == {None}
