"""Directions that the next block hardly reads (paper section 3.3)."""

from __future__ import annotations

import torch
from torch import nn


def linearized_block(block: nn.Module) -> torch.Tensor:
    """What a pre-norm block reads of a token, as one matrix [rows, dim] in float32.

    Stacks the query-key-value projection and the product of the MLP's two layers, each with the scale of the
    LayerNorm before it and, for the MLP, with the LayerScale behind it. Activation, attention pattern and the
    normalisation itself are left out: the matrix guides the adapter's start, it does not describe the block.

    Raises ValueError when the block has neither an attention projection nor an MLP that it knows.
    """
    readers = []
    attention, mlp = getattr(block, "attn", None), getattr(block, "mlp", None)
    if attention is not None:
        names = ("qkv",) if isinstance(getattr(attention, "qkv", None), nn.Linear) else ("q_proj", "k_proj", "v_proj")
        weights = [_weight(getattr(attention, name, None)) for name in names]
        found = [weight for weight in weights if weight is not None]
        if found:
            readers.append(torch.cat(found) * _norm_scale(block, "norm1"))
    product = _mlp_product(mlp)
    if product is not None:
        layer_scale = getattr(getattr(block, "ls2", None), "gamma", None)
        if layer_scale is None:
            layer_scale = getattr(block, "gamma_2", None)
        if layer_scale is not None:
            product = layer_scale.detach().float()[:, None] * product
        readers.append(product * _norm_scale(block, "norm2"))
    if not readers:
        raise ValueError(f"{type(block).__name__} has no attention projection and no MLP to linearise")
    return torch.cat(readers)


def null_directions(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    """The `rank` orthonormal directions that `matrix` [rows, dim] changes least: [dim, rank], the least first."""
    # In the paper's transposed notation these are left singular vectors of W~^T, hence "left-nullspace".
    _, _, right = torch.linalg.svd(matrix.float(), full_matrices=True)
    least: torch.Tensor = right.flip(0)[:rank].T.contiguous()
    return least


def _mlp_product(mlp: nn.Module | None) -> torch.Tensor | None:
    out = _weight(getattr(mlp, "fc2", None))
    gated = _weight(getattr(mlp, "fc1_x", None))  # SwiGLU keeps gate and value apart
    into = gated if gated is not None else _weight(getattr(mlp, "fc1", None))
    if out is None or into is None:
        return None
    if into.shape[0] == 2 * out.shape[1]:
        # GluMlp: one layer makes value and gate; `gate_last` says which half is the value.
        into = into[: out.shape[1]] if getattr(mlp, "gate_last", True) else into[out.shape[1] :]
    return out @ into if into.shape[0] == out.shape[1] else None


def _weight(layer: nn.Module | None) -> torch.Tensor | None:
    return layer.weight.detach().float() if isinstance(layer, nn.Linear) else None


def _norm_scale(block: nn.Module, name: str) -> torch.Tensor | float:
    weight: torch.Tensor | None = getattr(getattr(block, name, None), "weight", None)
    return 1.0 if weight is None else weight.detach().float()
