"""Reading and running again the blocks of Vision Transformers."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from singer_ray.errors import UserError
from singer_ray.vision.tapped import TappedViT

FAMILIES = {
    "vit_tiny_patch16_224": 1,
    "deit_tiny_distilled_patch16_224": 2,
    "vit_small_patch14_reg4_dinov2": 5,
    "vit_small_patch16_dinov3": 5,
    "eva02_tiny_patch14_224": 1,
    "beit_base_patch16_224": 1,
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> TappedViT:
    torch.manual_seed(0)
    name = str(request.param)
    size = 56 if "patch14" in name else 64
    model = timm.create_model(name, img_size=size, depth=3, num_classes=0).eval()
    tapped = TappedViT(model, [0, 1], name=name)
    assert tapped.prefix == FAMILIES[name]
    tapped.size = size  # type: ignore[assignment]
    return tapped


@torch.no_grad()
def test_taps_are_the_block_outputs(family: TappedViT) -> None:
    images = torch.randn(2, 3, family.size, family.size)  # type: ignore[call-overload]
    features = family(images)
    expected = family.model.forward_intermediates(
        images, indices=[0, 1], norm=False, intermediates_only=True, output_fmt="NLC", return_prefix_tokens=True
    )
    assert len(expected) == 2
    for layer, (patches, prefix) in enumerate(expected):
        assert torch.equal(features.tokens[layer][:, family.prefix :], patches)
        assert torch.equal(features.tokens[layer][:, : family.prefix], prefix)


@torch.no_grad()
def test_a_block_run_again_gives_the_same_bits(family: TappedViT) -> None:
    features = family(torch.randn(2, 3, family.size, family.size))  # type: ignore[call-overload]
    assert torch.equal(family.replay(1, features.tokens[0], features), features.tokens[1])


def test_blocks_behind_the_last_tap_are_not_run() -> None:
    model: Any = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=4)
    model.blocks[2].register_forward_hook(lambda *_: pytest.fail("block 2 ran"))
    tapped = TappedViT(model, [1])
    assert set(tapped(torch.randn(1, 3, 32, 32)).tokens) == {1}
    assert not model.blocks[1]._forward_hooks  # nothing of ours stays behind


def test_grid_of_the_input_size() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=1)
    assert TappedViT(model, [0]).grid(64) == (4, 4)


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "resnet18"])
def test_models_without_blocks_are_refused_by_name(name: str) -> None:
    with pytest.raises(UserError, match=f"{name}.*no transformer blocks"):
        TappedViT(timm.create_model(name), [0], name=name)


@pytest.mark.parametrize("layers", [[4], [-1], [0, 9]])
def test_layers_that_do_not_exist_are_refused(layers: list[int]) -> None:
    with pytest.raises(UserError, match="has layers 0 to 3"):
        TappedViT(timm.create_model("vit_tiny_patch16_224", depth=4), layers)
