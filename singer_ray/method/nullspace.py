"""Directions that the next block hardly reads (paper section 3.3), by several linearisations of that block."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

INVISIBLE = 1e-3
"""A direction counts as unread when its singular value is below this share of the largest."""


def mlp_matrix(block: nn.Module) -> torch.Tensor:
    """fc2.fc1 of the block's MLP as in the paper and its code, float32 [dim, dim]; nothing else of the block.

    Raises ValueError when the block has no MLP that it knows.
    """
    product = _mlp_product(getattr(block, "mlp", None))
    if product is None:
        raise ValueError(f"{type(block).__name__} has no MLP to linearise")
    return product


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
        known = [weight for weight in weights if weight is not None]
        if known:
            readers.append(torch.cat(known) * _norm_scale(block, "norm1"))
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


def jacobian_matrix(
    block: Callable[[torch.Tensor], torch.Tensor],
    tokens: torch.Tensor,
    prefix: int,
    probes: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """A square root of E[J^T J], [dim, dim] float32, J being the Jacobian of the block's branches, block(x) - x.

    Estimated from `probes` random vector-Jacobian products at real `tokens` [batch, prefix + patches, dim], averaged
    over patches; what one patch does to others through attention is in it. Its null directions are those of E[J^T J].
    """
    dim = tokens.shape[-1]
    moment = torch.zeros(dim, dim, dtype=torch.double)
    with torch.enable_grad(), torch.autocast(tokens.device.type, enabled=False):
        x = tokens.detach().float().requires_grad_(True)
        branches = block(x) - x
        for _ in range(probes):
            probe = torch.randn(branches.shape, generator=generator).to(branches.device)
            (pulled,) = torch.autograd.grad(branches, x, probe, retain_graph=True)
            rows = pulled[:, prefix:].flatten(0, 1).double().cpu()
            moment += rows.mT @ rows / len(rows)
    values, vectors = torch.linalg.eigh(moment / probes)
    root: torch.Tensor = (vectors * values.clamp_min(0).sqrt()).mT.float()
    return root


def random_directions(dim: int, rank: int, generator: torch.Generator) -> torch.Tensor:
    """`rank` random orthonormal directions: [dim, rank]. The control for every linearisation."""
    axes: torch.Tensor = torch.linalg.qr(torch.randn(dim, rank, generator=generator)).Q
    return axes


def principal_directions(patches: torch.Tensor, rank: int) -> torch.Tensor:
    """The `rank` directions along which patch tokens [batch, patches, dim] vary most: [dim, rank], the most first.

    Where artifacts hold most of the energy, these are the directions of the artifacts.
    """
    flat = patches.detach().float().flatten(0, 1)
    _, vectors = torch.linalg.eigh((flat - flat.mean(dim=0)).double().mT.cov())
    leading: torch.Tensor = vectors.flip(1)[:, :rank].float().contiguous()
    return leading


def null_directions(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    """The `rank` orthonormal directions that `matrix` [rows, dim] changes least: [dim, rank], the least first."""
    # In the paper's transposed notation these are left singular vectors of W~^T, hence "left-nullspace".
    _, _, right = torch.linalg.svd(matrix.float(), full_matrices=True)
    least: torch.Tensor = right.flip(0)[:rank].T.contiguous()
    return least


def nullity(matrix: torch.Tensor) -> int:
    """How many directions `matrix` [rows, dim] does not read at all, up to rounding."""
    values = torch.linalg.svdvals(matrix.float())
    missing = max(0, matrix.shape[1] - len(values))
    return missing + int((values < INVISIBLE * values[0]).sum())


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
