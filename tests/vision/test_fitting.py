"""Networks that can be read block by block, and those that cannot, family by family."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from singer_ray.errors import UserError
from singer_ray.vision.fitting import check_fit
from singer_ray.vision.models import load_network, load_teacher, outline

FIT = {
    "vit_tiny_patch16_224": 64,
    "deit_tiny_distilled_patch16_224": 64,
    "deit3_small_patch16_224": 64,
    "beit_base_patch16_224": 64,
    "eva02_tiny_patch14_224": 56,
    "vit_small_patch14_reg4_dinov2": 56,
    "vit_small_patch16_dinov3": 64,
    "vit_relpos_small_patch16_224": 64,
    "vit_base_patch16_siglip_224": 64,
    "vit_pe_core_tiny_patch16_384": 64,
}
"""Architecture -> a size that it reads."""
UNFIT = {
    "cait_xxs24_224": "block 0 gives 196 tokens, where 1 before the patches and a grid of 14 x 14 make 197",
    "convit_tiny": "block 0 gives 196 tokens",
    "xcit_nano_12_p16_224": "it has no grid of patches",
    "tnt_s_legacy_patch16_224": "it has no grid of patches",
    "naflexvit_base_patch16_gap": "it has no grid of patches",
    "gemma4_vit_167m_enc": "it has no grid of patches",
    "qwen3_vit_306m_enc": "its features are 14 x 14 x 1024, where its last block gives 196 x 1024",
}
"""Architectures with `.blocks`, and why they cannot be read."""


@pytest.mark.parametrize("name", FIT)
def test_families_that_fit_pass_by_their_values(name: str) -> None:
    torch.manual_seed(0)
    size = FIT[name]
    assert check_fit(timm.create_model(name, img_size=size, depth=2, num_classes=0), name, size) == (4, 4)


@pytest.mark.parametrize("name", UNFIT)
def test_families_that_do_not_fit_are_refused_by_name_without_weights(name: str) -> None:
    with pytest.raises(UserError, match=f"network {name} .* cannot be read block by block: {UNFIT[name]}"):
        check_fit(outline(name, "network", 224), f"network {name}", 224)


class OtherBlock(nn.Module):
    """Gives something else at every second call, as a block does that keeps a state."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block, self.calls = block, 0

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        found: torch.Tensor = self.block(tokens)
        return found * (1 + self.calls % 2)


def small(**changes: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model("test_vit", img_size=32, num_classes=0, **changes)


def test_a_block_that_cannot_be_run_again_is_refused() -> None:
    model = small()
    model.blocks[1] = OtherBlock(model.blocks[1])
    with pytest.raises(UserError, match=r"something else"):
        check_fit(model, "teacher own:Mine", 32)


def test_features_that_are_not_the_norm_of_the_last_block_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    own = model.forward_features
    monkeypatch.setattr(model, "forward_features", lambda images: own(images).flip(1))
    with pytest.raises(UserError, match="its features are not the norm of what its last block gives"):
        check_fit(model, "teacher own:Mine", 32)


def test_a_wrong_count_of_prefix_tokens_is_refused() -> None:
    model = small()
    model.num_prefix_tokens += 1
    with pytest.raises(UserError, match="block 0 gives 5 tokens, where 2 before the patches"):
        check_fit(model, "teacher own:Mine", 32)


def test_a_network_is_left_in_its_mode() -> None:
    model = small().train()
    check_fit(model, "student", 32)
    assert model.training
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("load", [load_teacher, load_network])
def test_what_has_no_blocks_is_refused_before_its_weights_are_fetched(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda *_, **__: pytest.fail("weights were fetched"))
    for name, fault in (("resnet50", "has no transformer blocks"), ("cait_xxs24_224", "cannot be read block by block")):
        with pytest.raises(UserError, match=fault):
            load(name, 224)


@pytest.mark.slow
def test_a_giant_is_outlined_without_memory() -> None:
    model = outline("vit_giant_patch14_dinov2", "teacher.name", 224)
    assert all(p.is_meta for p in model.parameters())
    assert check_fit(model, "teacher", 224) == (16, 16)


def test_an_architecture_without_published_weights_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="'vit_tiny_patch14_reg4_none' is not a timm model"):
        outline("vit_tiny_patch14_reg4_none", "teacher.name", 224, pretrained=True)
    with pytest.raises(UserError, match=r"'vit_srelpos_small_patch16_224.lost': timm has no weights 'lost'"):
        outline("vit_srelpos_small_patch16_224.lost", "teacher.name", 224)
    monkeypatch.setattr("singer_ray.vision.models._PLACES", ())
    with pytest.raises(UserError, match=r"'vit_tiny_patch16_224' has no published weights. Give a file"):
        outline("vit_tiny_patch16_224", "teacher.name", 224, pretrained=True)
