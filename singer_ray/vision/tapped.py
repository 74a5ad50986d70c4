"""A Vision Transformer whose block outputs can be read, and whose blocks can be run again on other tokens."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import nn

from singer_ray.errors import UserError


@dataclass
class Features:
    """What one pass leaves behind."""

    tokens: dict[int, torch.Tensor] = field(default_factory=dict)
    """Layer l -> output of block l before the final norm, [batch, prefix + patches, dim]; never edit in place."""
    calls: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=dict)
    """Layer l -> what block l was given besides its tokens (rotary positions, for instance)."""
    aside: dict[int, torch.Tensor] = field(default_factory=dict)
    """Layer l -> tokens that a wrapper added to the image's own and keeps from its readers, [batch, tokens, dim]."""

    def first(self, images: int) -> Features:
        """The same for the first `images` of the batch."""
        few, aside = ({n: each[:images] for n, each in kept.items()} for kept in (self.tokens, self.aside))
        return Features(few, self.calls, aside)


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; each module's own mode again afterwards."""
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in zip(modules, modes):
            module.train(mode)


class _LastTap(Exception):  # noqa: N818 (no error)
    """Ends a pass once the last wanted layer has been read."""


def check_layers(layers: Sequence[int], depth: int, name: str) -> None:
    """Raises UserError when there are no `layers`, or when one does not exist in a network of that depth."""
    wrong = [layer for layer in layers if not 0 <= layer < depth]
    if wrong or not layers:
        raise UserError(f"{name} has layers 0 to {depth - 1}, not {list(wrong or layers)}. Choose among those.")


class TappedViT(nn.Module):
    """Wraps a timm Vision Transformer (anything with `.blocks`) and reads the outputs of `layers`.

    Blocks after the last wanted layer are not run. Block inputs other than tokens are recorded, because models
    with rotary positions run silently without them when a block is called alone.

    Raises UserError when the model has no `.blocks` or a layer does not exist.
    """

    def __init__(self, model: nn.Module, layers: Iterable[int], *, name: str = "the model") -> None:
        super().__init__()
        blocks = getattr(model, "blocks", None)
        if not isinstance(blocks, (nn.Sequential, nn.ModuleList)) or not hasattr(model, "num_prefix_tokens"):
            raise UserError(
                f"{name} ({type(model).__name__}) has no transformer blocks to tap. Models of the vit, deit, beit, "
                "eva, dinov2 and dinov3 families have them: name one of those."
            )
        self.name = name
        self.model: Any = model  # timm adds its own attributes to modules
        self.layers = tuple(sorted(set(layers)))
        check_layers(self.layers, len(blocks), name)

    @property
    def plain(self) -> TappedViT:
        """The network as it is, read at the same layers: this object, unless a wrapper changes what is read."""
        return self

    def at(self, layers: Iterable[int]) -> Self:
        """The same, read at other layers."""
        other = copy.copy(self)
        other.layers = tuple(sorted(set(layers)))
        check_layers(other.layers, self.depth, self.name)
        return other

    @property
    def blocks(self) -> nn.ModuleList:
        blocks: nn.ModuleList = self.model.blocks
        return blocks

    @property
    def depth(self) -> int:
        return len(self.blocks)

    @property
    def width(self) -> int:
        return int(self.model.embed_dim)

    @property
    def final_norm(self) -> nn.Module:
        """The norm that `forward_features` applies after the last block; the identity where there is none."""
        norm = getattr(self.model, "norm", None)
        return norm if isinstance(norm, nn.Module) else nn.Identity()

    @property
    def prefix(self) -> int:
        """How many tokens come before the patches (class token, distillation token, registers)."""
        return int(self.model.num_prefix_tokens)

    @property
    def has_class_token(self) -> bool:
        """Whether token 0 is a class token."""
        declared = getattr(self.model, "has_class_token", None)
        return bool(declared) if declared is not None else getattr(self.model, "cls_token", None) is not None

    def grid(self, size: int) -> tuple[int, int]:
        """Rows and columns of patches of a `size` x `size` image."""
        patch_embed = self.model.patch_embed
        dynamic = patch_embed.dynamic_feat_size((size, size)) if hasattr(patch_embed, "dynamic_feat_size") else None
        rows, columns = dynamic or patch_embed.grid_size
        return int(rows), int(columns)

    def covered(self, size: int) -> tuple[int, int]:
        """Height and width, in pixels from the top left corner, of what the grid of a `size` x `size` image covers.

        Less than the image where its patches do not divide it (what is left over is not seen), more where timm pads it.
        """
        step = self.patch_step()
        rows, columns = self.grid(size)
        return (size, size) if step is None else (rows * step[0], columns * step[1])

    def unseen(self, size: int) -> str | None:
        """A line for an image size of which the network does not see the right and lower edge; None for others."""
        seen = min(self.covered(size))
        if seen >= size:
            return None
        fitting = " or ".join(map(str, self.fitting_sizes(size)))
        return (
            f"{self.name} sees {seen} of the {size} pixels of each side, since its patches do not divide them; scores "
            f"count what it sees. --data.image_size {fitting} is seen whole"
        )

    def check_size(self, size: int) -> None:
        """Raises UserError, naming the nearest sizes that fit, for one at which timm would stop half-way."""
        patch_embed, step = self.model.patch_embed, self.patch_step()
        strict = getattr(patch_embed, "strict_img_size", True) or getattr(patch_embed, "dynamic_img_pad", False)
        if step is not None and not strict and any(size % side for side in step):
            fitting = " or ".join(map(str, self.fitting_sizes(size)))
            raise UserError(
                f"{self.name} cannot read images of {size} x {size} pixels: its patches are {step[0]} x {step[1]}. "
                f"Use --data.image_size {fitting}."
            )

    def fitting_sizes(self, size: int) -> list[int]:
        """The nearest sizes, at most `size` and above, that the patches divide."""
        step = math.lcm(*(self.patch_step() or (1, 1)))
        return [near for near in (size // step * step, -(-size // step) * step) if near]

    def patch_step(self) -> tuple[int, int] | None:
        """Height and width of a patch where patches are cut out side by side; None for other beginnings."""
        patch_embed = self.model.patch_embed
        cut = getattr(patch_embed, "proj", None)
        if not isinstance(cut, nn.Conv2d) or hasattr(patch_embed, "backbone") or cut.kernel_size != cut.stride:
            return None
        return cut.stride[0], cut.stride[1]

    def forward(self, images: torch.Tensor) -> Features:
        """Normalised images [batch, 3, size, size] -> features of `layers`, in the order of the blocks."""
        features = Features()
        last = self.layers[-1]

        def read(layer: int) -> Any:
            def hook(_: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
                features.tokens[layer] = output[0] if isinstance(output, tuple) else output
                features.calls[layer] = (inputs[1:], kwargs)
                if layer == last:
                    raise _LastTap

            return hook

        handles = [self.blocks[n].register_forward_hook(read(n), with_kwargs=True) for n in self.layers]
        try:
            self.model.forward_features(images)
        except _LastTap:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return features

    def replay(self, layer: int, tokens: torch.Tensor, features: Features) -> torch.Tensor:
        """Block `layer` run on other tokens, with whatever else it was given in the pass that made `features`."""
        inputs, kwargs = features.calls[layer]
        output = self.blocks[layer](tokens, *inputs, **kwargs)
        replayed: torch.Tensor = output[0] if isinstance(output, tuple) else output
        return replayed
