"""The directions that the next block reads least."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from singer_ray.method.nullspace import linearized_block, null_directions


def _first_block(name: str, **settings: Any) -> Any:
    model: Any = timm.create_model(name, **settings)
    return model.blocks[0]


def test_exact_null_space_is_found() -> None:
    torch.manual_seed(0)
    hidden, _ = torch.linalg.qr(torch.randn(10, 3))
    matrix = torch.randn(40, 10) @ (torch.eye(10) - hidden @ hidden.T)
    found = null_directions(matrix, 3)
    assert found.shape == (10, 3)
    assert torch.allclose(found.T @ found, torch.eye(3), atol=1e-5)
    assert (matrix @ found).norm() < 1e-4
    assert (hidden.T @ found).det().abs() == pytest.approx(1, abs=1e-4)


def test_least_direction_comes_first() -> None:
    matrix = torch.diag(torch.tensor([4.0, 1.0, 3.0, 2.0]))
    gains = (matrix @ null_directions(matrix, 4)).norm(dim=0)
    assert gains.tolist() == pytest.approx([1, 2, 3, 4])


def test_fewer_rows_than_columns_leave_a_null_space() -> None:
    matrix = torch.randn(3, 8)
    assert (matrix @ null_directions(matrix, 5)).norm() < 1e-4


def test_block_of_a_plain_vit_is_qkv_over_mlp_with_norm_scales() -> None:
    block = _first_block("vit_tiny_patch16_224", depth=1)
    nn.init.uniform_(block.norm1.weight)
    nn.init.uniform_(block.norm2.weight)
    matrix = linearized_block(block)
    attention = block.attn.qkv.weight * block.norm1.weight
    mlp = block.mlp.fc2.weight @ block.mlp.fc1.weight * block.norm2.weight
    assert torch.allclose(matrix, torch.cat([attention, mlp]), atol=1e-6)


def test_layer_scale_is_folded_into_the_mlp() -> None:
    block = _first_block("vit_tiny_patch16_224", depth=1, init_values=0.1)
    nn.init.uniform_(block.ls2.gamma)
    rows = linearized_block(block)[-192:]
    assert torch.allclose(rows, block.ls2.gamma[:, None] * (block.mlp.fc2.weight @ block.mlp.fc1.weight), atol=1e-6)


@pytest.mark.parametrize(
    "name", ["eva02_tiny_patch14_224", "vit_small_patch16_dinov3", "deit3_small_patch16_224", "vit_tiny_patch16_224"]
)
def test_families_with_gates_and_rotary_positions_are_read(name: str) -> None:
    block = _first_block(name, depth=1)
    matrix = linearized_block(block)
    width = matrix.shape[1]
    assert matrix.shape[0] in (3 * width, 4 * width)
    assert torch.isfinite(matrix).all()


def test_a_block_without_known_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="no attention projection"):
        linearized_block(nn.Linear(4, 4))
