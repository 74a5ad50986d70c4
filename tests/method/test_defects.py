"""The directions in which a network's own weights stretch tokens."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from singer_ray.config import MethodConfig
from singer_ray.demo.planting import BLOCK
from singer_ray.errors import UserError
from singer_ray.method.artifacts import outlier_mask, patch_norms
from singer_ray.method.defects import defect_directions, mean_slopes, written
from singer_ray.method.refiners.registry import refiner_class
from singer_ray.method.refiners.singer.adapter import Singer, SingerAdapter
from singer_ray.vision.models import load_teacher
from singer_ray.vision.tapped import TappedViT
from tests.method.planted import images, planted, vit


@pytest.mark.parametrize(("units", "share"), [(1, 0.04), (2, 0.08), (3, 0.15)])
def test_planted_directions_are_found_from_the_weights_alone(units: int, share: float) -> None:
    model, made = planted(units, share, seed=units)
    axes = torch.linalg.qr(model.blocks[BLOCK].mlp.fc2.weight[:, made]).Q
    found = defect_directions(model.blocks[: BLOCK + 1], units)
    assert found.shape == (32, units)
    assert torch.allclose(found.T @ found, torch.eye(units), atol=1e-5)
    assert torch.linalg.svdvals(axes.T @ found).min() > 0.99  # both span the same


def test_those_of_later_blocks_hold_what_the_blocks_between_have_made_of_them() -> None:
    model, _ = planted(2, 0.08)
    tokens = TappedViT(model, [3])(images(16)).tokens[3][:, 1:]
    outliers = tokens[outlier_mask(patch_norms(tokens), 4.0)]
    found = defect_directions(model.blocks, 2)
    assert (outliers @ found).square().sum() / outliers.square().sum() > 0.9


def test_the_demonstrations_outliers_lie_in_the_defect_directions() -> None:
    model: Any = load_teacher("demo", 32)
    shown = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens = TappedViT(model, [3])(shown).tokens[3][:, 1:]
    outliers = tokens[outlier_mask(patch_norms(tokens), 4.0)]
    found = defect_directions(model.blocks[:4], 3)
    assert len(outliers) > 0
    assert (outliers @ found).square().sum() / outliers.square().sum() > 0.9


def normal_tokens(count: int) -> torch.Tensor:
    """[count, 1, 32] of mean 0 and variance 1 each, which LayerNorm leaves as they are."""
    tokens = torch.randn(count, 1, 32, generator=torch.Generator().manual_seed(0)).double()
    return (tokens - tokens.mean(dim=-1, keepdim=True)) / tokens.std(dim=-1, correction=0, keepdim=True)


def test_a_block_writes_what_its_matrices_say() -> None:
    tokens = normal_tokens(5)
    for silent, part in (("mlp.fc2", slice(0, 32)), ("attn.proj", slice(32, None))):
        block = vit(act_layer=nn.Identity, init_values=0.3).blocks[0].double()
        block.get_submodule(silent).weight.zero_()
        for name in ("attn.proj", "attn.qkv", "mlp.fc1", "mlp.fc2", "norm1", "norm2"):
            block.get_submodule(name).bias.zero_()
        for name in ("norm1", "norm2"):
            nn.init.uniform_(block.get_submodule(name).weight)
        for name in ("ls1", "ls2"):
            nn.init.uniform_(block.get_submodule(name).gamma)
        assert torch.allclose(block(tokens) - tokens, tokens @ written(block)[:, part].T, atol=1e-4)
        assert (block(tokens) - tokens).norm() > 0.1


def test_mean_slopes_are_those_of_the_best_linear_fit() -> None:
    centre, deviation = torch.tensor([0.0, 1.0, -40.0]).double(), torch.tensor([1.0, 2.0, 3.0]).double()
    assert mean_slopes(nn.Identity(), centre, deviation).tolist() == [1.0, 1.0, 1.0]
    above_zero = torch.special.ndtr(centre / deviation)
    assert torch.allclose(mean_slopes(nn.ReLU(), centre, deviation), above_zero, atol=5e-3)
    inputs = centre[:2, None] + deviation[:2, None] * torch.randn(2, 200_000, dtype=torch.double)
    values = nn.GELU()(inputs)
    fitted = ((inputs - centre[:2, None]) * values).mean(dim=1) / deviation[:2].square()
    assert torch.allclose(mean_slopes(nn.GELU(), centre, deviation)[:2], fitted, atol=2e-2)


def test_an_adapter_starts_along_them_at_no_change() -> None:
    model, _ = planted(2, 0.08)
    method = MethodConfig.model_validate({"linearization": "defect", "rank": 4})
    made = refiner_class(method)(TappedViT(model, (2, 3)), (2, 3), method)
    assert isinstance(made, Singer)
    for layer in (2, 3):
        adapter = made.adapters[str(layer)]
        assert isinstance(adapter, SingerAdapter)
        assert torch.equal(adapter.phi_down, defect_directions(model.blocks[: layer + 1], 4))
        tokens = TappedViT(model, [layer])(images(2)).tokens[layer]
        assert torch.equal(made(layer, tokens), tokens)
    assert made.learns


def test_no_weights_are_needed_to_tell_whether_they_can_be_found() -> None:
    make: Any = timm.create_model
    method = MethodConfig.model_validate({"linearization": "defect", "rank": 4})
    sizes: dict[str, Any] = {"depth": 2, "embed_dim": 32, "num_heads": 2}
    with torch.device("meta"):
        known, gated = (
            TappedViT(make(f"{name}_tiny_patch{n}_224", **sizes), [1]) for name, n in (("vit", 16), ("eva02", 14))
        )
    Singer.check(known, (1,), method)
    with pytest.raises(UserError, match=r"linearization defect cannot start from this teacher.*Choose jacobian"):
        Singer.check(gated, (1,), method)


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "deit3_small_patch16_224", "beit_base_patch16_224"])
def test_families_are_known(name: str) -> None:
    make: Any = timm.create_model
    model = make(name, depth=2, embed_dim=32, num_heads=2, num_classes=0)
    assert torch.isfinite(defect_directions(model.blocks, 4)).all()


def test_a_gated_mlp_is_refused() -> None:
    make: Any = timm.create_model
    model = make("eva02_tiny_patch14_224", depth=2, embed_dim=32, num_heads=2, num_classes=0)
    with pytest.raises(ValueError, match="EvaBlock has no MLP of two layers and one activation"):
        defect_directions(model.blocks, 4)
