"""The directions in which a network's own weights stretch tokens most, without any image (after SINDER, ECCV 2024)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

NODES = 256
"""Points by which the mean slope of an activation is found."""


def defect_directions(blocks: Iterable[nn.Module], rank: int) -> torch.Tensor:
    """The `rank` directions along which `blocks` can write the longest tokens: float32 [dim, rank], the longest first.

    Orthonormal eigenvectors of the second moment of what attention and MLPs write, made linear (`written`). What a
    pre-norm block writes does not grow with the token that it reads, since that is normalised; so what blocks write
    adds up, and its second moment is the sum of theirs. SINDER multiplies the blocks instead: behind a token that is
    long already, the product overrates what later blocks do to it.

    Raises ValueError for a block that `written` does not know.
    """
    first, *others = (matrix @ matrix.mT for matrix in map(written, blocks))
    longest: torch.Tensor = torch.linalg.eigh(sum(others, start=first)).eigenvectors.flip(1)
    return longest[:, :rank].float().contiguous()


@torch.no_grad()
def written(block: nn.Module) -> torch.Tensor:
    """What a pre-norm block adds to normally distributed tokens, as one matrix: float64 [dim, 2 dim], attention first.

    Every token attends to itself alone. LayerNorm has taken off mean and length; an activation has, for each hidden
    unit, its mean slope over such tokens, as the best linear fit has. LayerScale counts; biases only shift where
    activations work.

    Raises ValueError for a block without such an attention and a two-layer MLP with one activation.
    """
    return torch.cat([_attention(block), _mlp(block)], dim=1)


def _attention(block: Any) -> torch.Tensor:
    attention: Any = getattr(block, "attn", None)
    parts: list[Any] = [getattr(attention, name, None) for name in ("proj", "qkv", "v_proj")]
    out, joint, alone = parts
    if not isinstance(out, nn.Linear) or not isinstance(joint or alone, nn.Linear):
        raise ValueError(f"{type(block).__name__} has no attention with values and a projection to make linear")
    value = alone.weight if joint is None else joint.weight[2 * len(joint.weight) // 3 :]
    inner = getattr(getattr(attention, "norm", None), "weight", None)
    if inner is not None:  # between the values and their projection
        value = inner[:, None] * value
    return _scaled(block, ("ls1", "gamma_1"), _double(out.weight) @ _double(value) @ _normalised(block, "norm1"))


def _mlp(block: Any) -> torch.Tensor:
    parts: list[Any] = [getattr(getattr(block, "mlp", None), name, None) for name in ("fc1", "fc2", "act")]
    into, out, activation = parts
    fits = isinstance(into, nn.Linear) and isinstance(out, nn.Linear) and out.in_features == into.out_features
    if not fits or not isinstance(activation, nn.Module):
        raise ValueError(f"{type(block).__name__} has no MLP of two layers and one activation to make linear")
    norm = getattr(block, "norm2", None)
    shift = getattr(norm, "bias", None)
    weight = _double(into.weight) @ _normalised(block, "norm2")
    centre = torch.zeros(len(weight)).to(weight) if into.bias is None else _double(into.bias)
    if shift is not None:
        centre = centre + _double(into.weight) @ _double(shift)
    slopes = mean_slopes(activation, centre, weight.norm(dim=1))
    return _scaled(block, ("ls2", "gamma_2"), _double(out.weight) @ (slopes[:, None] * weight))


def mean_slopes(activation: nn.Module, centre: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """The mean slope of an activation over normally distributed inputs of these means and deviations, [units] each."""
    places = (torch.arange(NODES, dtype=torch.double) + 0.5) / NODES
    nodes = torch.special.ndtri(places).to(centre)
    inputs = centre[:, None] + deviation[:, None] * nodes
    with torch.enable_grad():
        inputs = inputs.detach().requires_grad_()
        (slopes,) = torch.autograd.grad(activation(inputs).sum(), inputs)
    mean: torch.Tensor = slopes.mean(dim=1)
    return mean


def _normalised(block: Any, name: str) -> torch.Tensor:
    norm = getattr(block, name, None)
    scale = getattr(norm, "weight", None)
    if scale is None:
        raise ValueError(f"{type(block).__name__} has no {name} with a weight to make linear")
    centring = torch.eye(len(scale), dtype=torch.double, device=scale.device)
    if isinstance(norm, nn.LayerNorm):
        centring = centring - 1 / len(scale)
    return _double(scale)[:, None] * centring


def _scaled(block: Any, names: Iterable[str], matrix: torch.Tensor) -> torch.Tensor:
    for name in names:
        scale = getattr(block, name, None)
        scale = getattr(scale, "gamma", scale)
        if isinstance(scale, torch.Tensor):
            return _double(scale)[:, None] * matrix
    return matrix


def _double(weight: torch.Tensor) -> torch.Tensor:
    return weight.detach().double()
