"""Properties that hold for any features, not only for those that someone thought of."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
import timm
import torch
from hypothesis import given, settings

from singer_ray.config import MethodConfig
from singer_ray.method.losses import cosine_gram, distillation_loss, information_loss, outlier_loss
from singer_ray.method.refiners.base import Refiner
from singer_ray.method.refiners.registry import REFINERS
from singer_ray.vision.tapped import TappedViT

PATCHES, DIM = 16, 8
seeds = st.integers(0, 2**31)
few = settings(max_examples=40, deadline=None, derandomize=True)


def features(seed: int, *, batch: int = 2, ties: bool = False, zeros: bool = False) -> torch.Tensor:
    """[batch, 1 + patches, 8] with some patches 30 times as long as the rest."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(batch, 1 + PATCHES, DIM, generator=generator)
    tokens[:, 1:3] *= 30
    if ties:
        tokens[:, 1:] = torch.nn.functional.normalize(tokens[:, 1:], dim=-1)
    if zeros:
        tokens[:, 4:8] = 0
    return tokens


def singer(seed: int, **more: Any) -> Refiner:
    torch.manual_seed(0)
    method = {"rank": 3, "linearization": "attention_mlp"}
    make: Any = timm.create_model
    model = make("vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=DIM, depth=2, num_heads=2, num_classes=0)
    refiner = REFINERS["singer"](TappedViT(model, [0, 1]), (0, 1), MethodConfig.model_validate({**method, **more}))
    with torch.no_grad():
        torch.manual_seed(seed % 1000)
        for parameter in refiner.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return refiner


@pytest.mark.slow
@few
@given(seeds)
def test_information_loss_is_zero_at_strength_zero(seed: int) -> None:
    tokens = features(seed)
    for radial in (False, True):
        refiner = singer(seed, strength=0.0, radial=radial)
        target = refiner.target(0, tokens, refiner(0, tokens))
        assert torch.equal(target, tokens) is not radial
        # Cosines do not see lengths: the radial part costs no information in the sense of L_info.
        assert information_loss(target[:, 1:], tokens[:, 1:]).item() < 1e-12


@few
@given(seeds, st.booleans())
def test_the_radial_part_gives_every_patch_the_median_length(seed: int, zeros: bool) -> None:
    tokens = features(seed, zeros=zeros)
    refiner = singer(seed, radial=True)
    refiner.calibrate({0: 2.5, 1: 2.5})
    with torch.no_grad():
        refined = refiner(0, tokens)
        target = refiner.target(0, tokens, refined)
    assert torch.equal(target[:, 0], tokens[:, 0])
    lengths = target[:, 1:].norm(dim=-1)
    assert torch.allclose(lengths[refined[:, 1:].norm(dim=-1) > 0], torch.tensor(2.5), rtol=1e-4)
    assert torch.isfinite(target).all()
    assert torch.cosine_similarity(target[:, 1:3], refined[:, 1:3], dim=-1).min() > 0.999


@few
@given(seeds, st.booleans(), st.booleans())
def test_ties_and_zero_tokens_give_finite_losses_and_gradients(seed: int, ties: bool, zeros: bool) -> None:
    patches = features(seed, ties=ties, zeros=zeros)[:, 1:].requires_grad_()
    other = features(seed + 1)[:, 1:]
    losses = [outlier_loss(patches, 0.9, 1.0), information_loss(patches, other), distillation_loss(patches, other)]
    (gradient,) = torch.autograd.grad(sum(losses, torch.zeros(())), patches)
    assert all(torch.isfinite(loss) for loss in losses)
    assert torch.isfinite(gradient).all()


@few
@given(seeds)
def test_a_gate_leaves_short_patches_alone_and_only_those(seed: int) -> None:
    tokens = features(seed)
    norms = tokens[:, 1:].norm(dim=-1)
    long = norms > 3 * norms.median(dim=1, keepdim=True).values
    changed = (singer(seed, gate=3.0)(0, tokens) != tokens)[:, 1:].any(dim=-1)
    assert torch.equal(changed, long)
    assert long.any()


@few
@given(seeds)
def test_losses_of_bfloat16_features_agree_with_float32_within_one_percent(seed: int) -> None:
    """Features rounded to bfloat16 (8 bits) under autocast: the losses themselves are computed in float32."""
    tokens, other = features(seed)[:, 1:], features(seed + 1)[:, 1:]
    with torch.autocast("cpu", torch.bfloat16):
        half = [outlier_loss(tokens.bfloat16(), 0.9, 1.0), distillation_loss(tokens.bfloat16(), other.bfloat16())]
        gram = cosine_gram(tokens.bfloat16())
    full = [outlier_loss(tokens, 0.9, 1.0), distillation_loss(tokens, other)]
    for low, high in zip(half, full):
        assert low.dtype == torch.float32
        assert low.item() == pytest.approx(high.item(), rel=0.01, abs=1e-6)
    assert gram.dtype == torch.float32
    assert (gram - cosine_gram(tokens)).abs().max() < 0.01
