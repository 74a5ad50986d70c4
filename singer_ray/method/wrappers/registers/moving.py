"""One pass of a Vision Transformer with a token more, to which some hidden units are moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from singer_ray.vision.tapped import TappedViT


@contextmanager
def moving(network: TappedViT, neurons: Mapping[int, torch.Tensor], *, add: bool) -> Iterator[None]:
    """While it lasts, passes of the network have a token between prefix and patches that takes the `neurons` over.

    Block -> int64 [units], hidden units of its MLP: the token gets each one's value of largest magnitude among the
    patches of the image, and the patches get 0. With `add` the token is made, of zeros, before the first block; without
    it, it must be among the tokens that a block is given.
    """
    prefix = network.prefix
    # Rotary positions belong to the tokens behind the prefix, which each attention counts by itself.
    counting: list[Any] = [
        block.attn for block in network.blocks if hasattr(getattr(block, "attn", None), "num_prefix_tokens")
    ]
    handles = []
    for attention in counting:
        attention.num_prefix_tokens += 1
    try:
        if add:
            handles.append(network.blocks[0].register_forward_pre_hook(_adder(prefix)))
        for block, units in neurons.items():
            handles.append(hidden_layer(network, block).register_forward_pre_hook(_mover(units, prefix)))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for attention in counting:
            attention.num_prefix_tokens -= 1


def hidden_layer(network: TappedViT, block: int) -> Any:
    """The layer whose input are the hidden units of a block's MLP; None where there is none that is known."""
    layer = getattr(getattr(network.blocks[block], "mlp", None), "fc2", None)
    return layer if isinstance(layer, nn.Linear) else None


def written_lengths(network: TappedViT, block: int) -> torch.Tensor:
    """How long a token each hidden unit of a block's MLP adds, for an activation of 1: float32 [units]."""
    columns = hidden_layer(network, block).weight.float()
    scale = getattr(getattr(network.blocks[block], "ls2", None), "gamma", None)
    if scale is None:
        scale = getattr(network.blocks[block], "gamma_2", None)
    lengths: torch.Tensor = (columns if scale is None else scale.float()[:, None] * columns).norm(dim=0)
    return lengths


def _adder(prefix: int) -> Callable[..., tuple[Any, ...]]:
    def hook(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        tokens = inputs[0]
        joined = torch.cat([tokens[:, :prefix], torch.zeros_like(tokens[:, :1]), tokens[:, prefix:]], dim=1)
        return joined, *inputs[1:]

    return hook


def _mover(units: torch.Tensor, prefix: int) -> Callable[..., tuple[torch.Tensor]]:
    def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        hidden = inputs[0]
        chosen = hidden.index_select(-1, units)
        patches = chosen[:, prefix + 1 :]
        largest = patches.gather(1, patches.abs().argmax(dim=1, keepdim=True))
        moved = torch.cat([chosen[:, :prefix], largest, torch.zeros_like(patches)], dim=1)
        return (hidden.index_copy(-1, units, moved),)

    return hook
