"""Test-time registers: which neurons are found, and what becomes of them in a pass."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import ParallelThingsBlock

from singer_ray.demo.planting import BLOCK
from singer_ray.errors import UserError
from singer_ray.method.artifacts import max_median_ratio, patch_norms
from singer_ray.method.wrappers.registers.moving import moving
from singer_ray.method.wrappers.registers.wrapper import Registers
from singer_ray.vision.tapped import TappedViT
from tests.method.planted import LAYERS, SIZE, images, planted, vit, wrap


def observed(model: Any, **settings: Any) -> Registers:
    wrapper = wrap(model, "registers", **settings)
    assert isinstance(wrapper, Registers)
    with torch.no_grad():
        wrapper.observe(images())
    return wrapper


def largest(network: TappedViT, shown: torch.Tensor) -> dict[int, float]:
    tokens = network(shown).tokens
    return {n: float(max_median_ratio(patch_norms(t[:, network.prefix :])).mean()) for n, t in tokens.items()}


@pytest.mark.parametrize(("units", "share"), [(1, 0.04), (2, 0.08), (3, 0.15), (4, 0.3)])
def test_the_planted_neurons_are_found_and_the_artifacts_go(units: int, share: float) -> None:
    model, made = planted(units, share, seed=units)
    wrapper, shown = observed(model), images(32, seed=9)
    assert {n: sorted(chosen.tolist()) for n, chosen in wrapper.neurons.items()} == {BLOCK: made}
    before, after = largest(wrapper.plain, shown), largest(wrapper, shown)
    assert min(before.values()) > 6
    assert max(after.values()) < 2
    (line,) = wrapper.notes()
    assert f"moves {units} neuron{'s' * (units > 1)} ({units} in block {BLOCK})" in line


@pytest.mark.parametrize("seed", range(3))
def test_a_teacher_without_artifacts_stays_as_it_is_and_that_is_said(seed: int) -> None:
    model, shown = vit(seed), images(8, seed=9)
    wrapper = observed(model)
    assert wrapper.found()["neurons"].shape == (0, 2)
    read, plain = wrapper(shown).tokens, wrapper.plain(shown).tokens
    assert all(torch.equal(tokens, plain[n]) for n, tokens in read.items())
    (line,) = wrapper.notes()
    assert "no patch is above 4 x the median norm of its image, so no neurons are moved" in line


def test_artifacts_that_no_neuron_makes_are_left_and_that_is_said() -> None:
    model = vit()
    model.pos_embed[:, 8] *= 2000  # a patch of high norm from the start
    wrapper = observed(model)
    (line,) = wrapper.notes()
    assert "0 neurons found" in line
    assert "features stay as they are" in line
    read, plain = wrapper(images(4)).tokens, wrapper.plain(images(4)).tokens
    assert all(torch.equal(tokens, plain[n]) for n, tokens in read.items())


def test_the_token_gets_each_neurons_largest_value_with_its_sign_and_patches_get_zero() -> None:
    model, made = planted()
    wrapper, shown = observed(model), images(5, seed=10)
    fc2, seen = model.blocks[BLOCK].mlp.fc2, []
    handle = fc2.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    with moving(wrapper, {}, add=True):
        wrapper.plain(shown)
    wrapper(shown)
    handle.remove()
    there, moved = (hidden[..., made] for hidden in seen)
    patches = there[:, 2:]
    assert moved.shape == there.shape == (5, 1 + 1 + 36, len(made))
    assert torch.equal(moved[:, 1:2], patches.gather(1, patches.abs().argmax(dim=1, keepdim=True)))
    assert bool((moved[:, 1] < 0).any())  # with its sign
    assert not moved[:, 2:].any()
    assert torch.equal(moved[:, 0], there[:, 0])  # the class token's own


@pytest.mark.slow
def test_a_setting_bounds_neurons_and_blocks() -> None:
    model, made = planted(3, 0.15, seed=3)
    few = observed(model, neurons=2)
    assert sum(len(units) for units in few.neurons.values()) <= 2
    assert set(few.neurons) <= {BLOCK}
    assert set(few.neurons.get(BLOCK, torch.tensor([])).tolist()) <= set(made)
    early = observed(model, last_block=BLOCK - 1)
    assert all(block < BLOCK for block in early.neurons)
    assert observed(model, ratio=1000.0).neurons == {}


def test_a_rotary_teacher_sees_a_token_more_as_one_that_was_built_with_it() -> None:
    settings: dict[str, Any] = {"img_size": SIZE, "patch_size": 4, "embed_dim": 32, "depth": 3, "num_heads": 2}
    make: Any = timm.create_model
    torch.manual_seed(0)
    longer = make("vit_small_patch16_dinov3", num_reg_tokens=3, num_classes=0, **settings).eval().requires_grad_(False)
    longer.reg_token[:, -1] = 0
    model = make("vit_small_patch16_dinov3", num_reg_tokens=2, num_classes=0, **settings).eval().requires_grad_(False)
    model.load_state_dict({**longer.state_dict(), "reg_token": longer.reg_token[:, :2]})
    network, shown = TappedViT(model, [0, 2]), images(3)
    with moving(network, {}, add=True):
        tokens = network(shown).tokens
    native = TappedViT(longer, [0, 2])(shown).tokens
    assert all(torch.allclose(each, native[n], atol=1e-5) for n, each in tokens.items())
    assert network.prefix == 3
    assert all(block.attn.num_prefix_tokens == 3 for block in model.blocks)
    wrapper = wrap(model, "registers", layers=(1, 2))
    wrapper.take({"neurons": torch.tensor([[0, 5], [2, 7]])})
    features = wrapper(shown)
    assert not torch.equal(features.tokens[2], wrapper.plain(shown).tokens[2])
    assert torch.allclose(wrapper.replay(2, features.tokens[1], features), features.tokens[2], atol=1e-5)


def test_the_last_block_can_be_run_again_on_its_own_output() -> None:
    model, _ = planted()
    wrapper = observed(model)
    features = wrapper.at([3])(images(2))
    assert wrapper.replay(3, features.tokens[3], features).shape == features.tokens[3].shape


def test_a_teacher_without_the_hidden_layer_is_refused_naming_it() -> None:
    model = vit(block_fn=ParallelThingsBlock)
    with pytest.raises(
        UserError, match=r"hidden units at blocks\[0\]\.mlp\.fc2, .*teacher tiny \(ParallelThingsBlock\)"
    ):
        wrap(model, "registers")


def test_a_teacher_whose_blocks_take_no_other_number_of_tokens_is_refused_by_name() -> None:
    make: Any = timm.create_model
    settings: dict[str, Any] = {"img_size": SIZE, "patch_size": 4, "embed_dim": 32, "depth": 4, "num_heads": 2}
    with torch.device("meta"):
        model = make("beit_base_patch16_224", num_classes=0, **settings)
    with pytest.raises(UserError, match=r"cannot give teacher tiny a token more.*Use --method.wrapper shift_average"):
        wrap(model, "registers")


def test_a_block_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match="last_block is 4, but teacher tiny has blocks 0 to 3"):
        wrap(vit(), "registers", last_block=4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [torch.bfloat16])
def test_it_works_in_half_precision(kind: torch.dtype) -> None:
    model, made = planted()
    wrapper = wrap(model, "registers")
    assert isinstance(wrapper, Registers)
    with torch.no_grad(), torch.autocast("cpu", kind):
        wrapper.observe(images())
        assert {n: sorted(chosen.tolist()) for n, chosen in wrapper.neurons.items()} == {BLOCK: made}
        assert max(largest(wrapper, images(8, seed=9)).values()) < 2
        features = wrapper(images(2))
        assert torch.isfinite(wrapper.replay(LAYERS[1], features.tokens[LAYERS[0]], features)).all()
