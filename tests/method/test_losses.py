"""The loss terms against values worked out by hand, and at the edges where float arithmetic bites."""

from __future__ import annotations

import math

import pytest
import torch

from singer_ray.method.losses import cosine_gram, distillation_loss, information_loss, outlier_loss, row_quantile


def with_norms(*norms: float) -> torch.Tensor:
    """One image whose patches have these norms: [1, patches, 2]."""
    angles = torch.arange(len(norms)) * 0.7
    return (torch.tensor(norms)[:, None] * torch.stack([angles.cos(), angles.sin()], dim=1))[None]


def test_distillation_loss_is_the_mean_over_all_elements() -> None:
    projected = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    target = torch.tensor([[[1.0, 0.0], [0.0, 4.0]]])
    assert distillation_loss(projected, target).item() == pytest.approx((0 + 4 + 9 + 0) / 4)


def test_outlier_loss_is_the_squared_excess_over_the_quantile_in_median_norms() -> None:
    # Norms 1, 2, 3, 10: the 0.5-quantile is 2.5, above it lie 3 and 10.
    loss = outlier_loss(with_norms(1, 2, 3, 10), gamma=0.5, median_norm=2.0)
    assert loss.item() == pytest.approx((0.25**2 + 3.75**2) / 2, rel=1e-5)


def test_outlier_loss_of_a_batch_is_the_mean_of_its_parts() -> None:
    torch.manual_seed(0)
    patches = torch.randn(6, 20, 8)
    patches[0] = torch.nn.functional.normalize(patches[0], dim=1)  # ties: an image without an outlier
    parts = torch.stack([outlier_loss(part, 0.9, 1.5) for part in patches.split(3)])
    assert outlier_loss(patches, 0.9, 1.5).item() == pytest.approx(parts.mean().item(), rel=1e-6)


def test_quantile_has_no_gradient() -> None:
    patches = with_norms(1, 2, 3, 10).requires_grad_()
    outlier_loss(patches, 0.5, 1.0).backward()
    assert patches.grad is not None
    assert patches.grad[0, :2].abs().max() == 0  # below the quantile: nothing pulls on them
    assert patches.grad[0, 3].norm() > 0


@pytest.mark.parametrize("jitter", [0.0, 1e-7])
def test_equal_norms_have_no_outlier(jitter: float) -> None:
    norms = torch.full((50,), 3.0) * (1 + jitter * torch.linspace(0, 1, 50))
    patches = with_norms(*norms.tolist()).requires_grad_()
    loss = outlier_loss(patches, 0.9, 3.0)
    loss.backward()
    assert loss.item() == 0
    assert patches.grad is not None
    assert torch.isfinite(patches.grad).all()


def test_information_loss_by_hand() -> None:
    original = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    turned = torch.tensor([[[3.0, 0.0], [1.0, 1.0]]])
    # Gram matrices [[1, 0], [0, 1]] and [[1, s], [s, 1]] with s = cos 45 degrees: two of four entries differ by s.
    assert information_loss(turned, original).item() == pytest.approx(2 * 0.5 / 4, rel=1e-5)


def test_information_loss_sees_directions_only() -> None:
    torch.manual_seed(0)
    patches = torch.randn(2, 9, 5)
    assert information_loss(patches * torch.rand(2, 9, 1).add(0.5), patches).item() == pytest.approx(0, abs=1e-12)


def test_zero_tokens_keep_gradients_bounded() -> None:
    torch.manual_seed(0)
    patches = torch.randn(1, 8, 4)
    patches[0, 0] = 0
    refined = patches.clone().requires_grad_()
    loss = information_loss(refined, torch.randn(1, 8, 4)) + outlier_loss(refined, 0.8, 1.0)
    loss.backward()
    assert math.isfinite(loss.item())
    assert refined.grad is not None
    assert refined.grad.abs().max() < 1e5


def test_gram_is_float32_under_autocast() -> None:
    torch.manual_seed(0)
    patches = torch.randn(2, 16, 32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cosine_gram(patches), cosine_gram(patches.clone()))
        assert cosine_gram(patches).dtype == torch.float32
        assert cosine_gram(patches.bfloat16()).dtype == torch.float32
    assert (cosine_gram(patches).diagonal(dim1=1, dim2=2) - 1).abs().max() < 1e-6


@pytest.mark.parametrize("gamma", [0.01, 0.5, 0.9, 0.95, 0.97, 0.999])
@pytest.mark.parametrize("patches", [2, 49, 64, 196])
def test_row_quantile_agrees_with_torch(gamma: float, patches: int) -> None:
    torch.manual_seed(0)
    values = torch.rand(7, patches)
    expected = torch.quantile(values, gamma, dim=1, keepdim=True)
    assert torch.allclose(row_quantile(values, gamma), expected, atol=2e-6)
