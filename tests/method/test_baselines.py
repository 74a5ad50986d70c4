"""The baselines as refiners: what each does to features, by hand-computed values."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from singer_ray.config import MethodConfig
from singer_ray.method.refiners.base import Refiner
from singer_ray.method.refiners.registry import REFINERS
from singer_ray.vision.tapped import TappedViT


@pytest.fixture(scope="module")
def teacher() -> TappedViT:
    torch.manual_seed(0)
    make: Any = timm.create_model
    model = make("vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=8, depth=3, num_heads=2, num_classes=0)
    return TappedViT(model.eval().requires_grad_(False), [1, 2])


def refiner(name: str, teacher: TappedViT, **settings: Any) -> Refiner:
    made = REFINERS[name](teacher, (1, 2), MethodConfig.model_validate({"refiner": name, "rank": 2, **settings}))
    made.calibrate({1: 2.0, 2: 3.0})
    return made


def image_of_norms(*norms: float) -> torch.Tensor:
    """[1, 1 + patches, 8]: a class token, then patches of these norms in different directions."""
    directions = torch.nn.functional.normalize(torch.randn(len(norms), 8), dim=1)
    return torch.cat([torch.full((1, 8), 50.0), torch.tensor(norms)[:, None] * directions])[None]


def test_clip_shortens_to_a_multiple_of_the_median(teacher: TappedViT) -> None:
    tokens = image_of_norms(1, 2, 3, 4, 100)
    refined = refiner("clip", teacher, clip={"ratio": 1.2})(1, tokens)
    assert refined[0, 1:].norm(dim=1).tolist() == pytest.approx([1, 2, 3, 3.6, 3.6])
    assert torch.allclose(torch.cosine_similarity(refined, tokens, dim=2), torch.ones(1, 6))


def test_quantile_clip_shortens_to_a_quantile(teacher: TappedViT) -> None:
    refined = refiner("quantile_clip", teacher, quantile_clip={"quantile": 0.75})(1, image_of_norms(1, 2, 3, 4, 100))
    assert refined[0, 1:].norm(dim=1).tolist() == pytest.approx([1, 2, 3, 4, 4])


def test_normalised_targets_have_mean_zero_and_the_median_length(teacher: TappedViT) -> None:
    refined = refiner("layernorm", teacher)(2, image_of_norms(1, 2, 3, 4, 100))[0, 1:]
    assert refined.norm(dim=1).tolist() == pytest.approx([3.0] * 5, rel=1e-3)
    assert refined.mean(dim=1).abs().max() < 1e-6


def test_plain_distillation_changes_nothing(teacher: TappedViT) -> None:
    tokens = image_of_norms(1, 100)
    assert refiner("none", teacher)(1, tokens) is tokens


def test_vitkd_generates_the_masked_patches_of_the_last_layer(teacher: TappedViT) -> None:
    made: Any = refiner("vitkd", teacher, vitkd={"mask_ratio": 0.5})
    projected, target = torch.randn(3, 17, 8), torch.randn(3, 17, 8)
    plain = made.distill(1, projected, target, (4, 4))
    assert plain.item() == pytest.approx((projected - target).square().mean().item())
    made.generator = torch.nn.Identity()  # then a masked patch is guessed as the mask token, 0
    torch.manual_seed(5)
    loss = made.distill(2, projected, target, (4, 4))
    torch.manual_seed(5)
    masked = torch.rand(3, 16) < 0.5
    errors = [(projected[b, 0] - target[b, 0]).square().mean() for b in range(3)]
    errors += [target[b, 1 + p].square().mean() for b in range(3) for p in range(16) if masked[b, p]]
    assert loss.item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-5)


@pytest.mark.slow
def test_adapter_parameters_of_vit_large_to_vit_tiny_are_as_the_paper_counts() -> None:
    make: Any = timm.create_model
    large = TappedViT(make("vit_large_patch16_224", depth=2, num_classes=0), [0, 1])
    student = make("vit_tiny_patch16_224", num_classes=0)
    refiner = REFINERS["singer"](large, (0, 1), MethodConfig(rank=16))
    count = sum(p.numel() for p in refiner.parameters())
    assert count == 65_536
    share = count / sum(p.numel() for p in student.parameters())
    assert round(100 * share, 1) == 1.2
