"""The mean over shifted views: features come back to their patches, and only what a view shows is counted."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from singer_ray.config import MethodConfig
from singer_ray.errors import UserError
from singer_ray.method.artifacts import max_median_ratio, patch_norms
from singer_ray.method.wrappers.registry import check_wrapper, wrapped
from singer_ray.method.wrappers.shift_average.wrapper import ShiftAverage, View, draw_views
from singer_ray.vision.tapped import TappedViT
from tests.method.planted import LAYERS, SIZE, images, vit, wrap


def by_patch(seed: int = 0) -> Any:
    """A network whose features of a patch depend on its pixels alone: neither on its place nor on other patches."""
    model = vit(seed)
    model.pos_embed.zero_()
    for block in model.blocks:
        block.attn.proj.weight.zero_()
    return model


def flat(count: int = 4) -> torch.Tensor:
    """Images of one colour a patch, which look alike when mirrored."""
    colours = torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(3))
    return colours.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)


@pytest.mark.parametrize("flips", [False, True])
def test_features_come_back_to_the_patch_that_they_belong_to(flips: bool) -> None:
    views = 50 if flips else 25
    wrapper = wrap(by_patch(), "shift_average", views=views, shift=2, flips=flips)
    assert isinstance(wrapper, ShiftAverage)
    assert len(set(wrapper.views)) == views  # all that there are
    plain = wrapper.plain(flat())
    for n, tokens in wrapper(flat()).tokens.items():
        assert torch.allclose(tokens, plain.tokens[n], rtol=1e-4, atol=1e-4)
        assert (tokens[:, 1:] - tokens[:, 1:].mean(dim=1, keepdim=True)).norm() > 1  # patches differ


def test_a_patch_has_the_mean_over_the_views_that_show_it_and_a_class_token_over_all() -> None:
    """Each view gives all its tokens one value of its own, so that means can be counted by hand."""
    wrapper = wrap(by_patch(), "shift_average", layers=(3,), views=3, shift=1)
    assert isinstance(wrapper, ShiftAverage)
    wrapper.views = [View(0, 0, False), View(1, 0, False), View(0, -1, True)]
    numbers = itertools.count(1)

    class Counting(nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return torch.full_like(tokens, float(next(numbers)))

    wrapper.model.blocks[3] = Counting()
    tokens = wrapper(images(1)).tokens[3][0, :, 0]
    assert tokens[0] == pytest.approx(2.0)
    plane = tokens[1:].reshape(6, 6)
    # Moved down by one, the last row leaves the image; mirrored and moved left, the first column of the mirrored image,
    # which is the last of the image itself.
    assert plane[2, 2] == pytest.approx((1 + 2 + 3) / 3)
    assert plane[5, 2] == pytest.approx((1 + 3) / 2)
    assert plane[2, 5] == pytest.approx((1 + 2) / 2)
    assert plane[5, 5] == 1.0


def test_an_artifact_of_a_place_is_spread_and_others_stay() -> None:
    model = vit()
    model.pos_embed[:, 15] *= 2000
    wrapper = wrap(model, "shift_average", views=9, shift=2)
    shown = images(8)
    before, after = (max_median_ratio(patch_norms(f(shown).tokens[3][:, 1:])).mean() for f in (wrapper.plain, wrapper))
    assert before > 6
    assert after < 0.4 * before


def test_the_views_follow_from_the_seed_and_start_with_the_plain_one() -> None:
    views = draw_views(9, 2, 7, flips=False)
    assert views == draw_views(9, 2, 7, flips=False)
    assert views != draw_views(9, 2, 8, flips=False)
    assert views[0] == View(0, 0, mirrored=False)
    assert len(set(views)) == 9
    assert all(abs(v.down) <= 2 and abs(v.right) <= 2 and not v.mirrored for v in views)
    assert any(v.mirrored for v in draw_views(20, 2, 7, flips=True))
    first, again = (wrap(vit(), "shift_average", seed=3)(images(2)).tokens[3] for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"views": 26, "shift": 2}, "views 26 is above the 25 views that shifts of up to 2 patches give"),
        ({"shift": 6}, "shift 6 would move all 6 patches of a side away. Allowed: 1 to 5"),
    ],
)
def test_views_that_cannot_be_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        wrap(vit(), "shift_average", **settings)


def test_flips_need_patches_that_divide_the_image() -> None:
    model = vit(dynamic_img_size=True, patch_size=5, img_size=25)
    method = MethodConfig.model_validate(
        {"wrapper": "shift_average", "refiner": "none", "shift_average": {"flips": True}}
    )
    with pytest.raises(UserError, match=r"flips needs patches that divide the image.*--data.image_size 25 or 30"):
        check_wrapper(_unchecked(model), method, 27)


def _unchecked(model: Any) -> TappedViT:
    """Reads sizes that its patches do not divide."""
    model.patch_embed.strict_img_size = False
    return TappedViT(model, LAYERS, name="teacher tiny")


def test_a_teacher_whose_patches_overlap_is_refused_by_the_module_that_it_lacks() -> None:
    model = vit()
    model.patch_embed.proj = nn.Conv2d(3, 32, kernel_size=5, stride=4, padding=2)
    with pytest.raises(UserError, match=r"teacher tiny does not cut them side by side: its patch_embed\.proj"):
        wrap(model, "shift_average")


@pytest.mark.parametrize(
    "settings", [{"freeze": False}, {"linearization": "jacobian"}, {"variant": "paper"}, {"variant": "official"}]
)
def test_a_refiner_that_runs_the_next_block_again_is_refused_in_one_line(settings: dict[str, Any]) -> None:
    method = MethodConfig.model_validate({"wrapper": "shift_average", "refiner": "singer", **settings})
    with pytest.raises(UserError, match=r"method.refiner singer .*method.wrapper shift_average .*Use --method.wrapper"):
        wrapped(TappedViT(vit(), (1, 3)), method, size=SIZE, seed=0)


def test_an_adapter_in_closed_form_goes_together_with_it() -> None:
    method = MethodConfig.model_validate({"wrapper": "shift_average", "refiner": "singer"})
    assert wrapped(TappedViT(vit(), (1, 3)), method, size=SIZE, seed=0)(images(1)).tokens.keys() == {1, 3}
