"""Whether a network can be read block by block: one image is passed through it, and its tokens are compared."""

from __future__ import annotations

import torch
from torch import nn

from singer_ray.errors import UserError, printable
from singer_ray.vision.tapped import Features, TappedViT, evaluating

USABLE = "Name a model of the vit, deit, beit, eva, dinov2 or dinov3 families instead"
_TOLERANCE = 1e-2
"""Of the norm of a difference, over the norm: far above rounding on any device, far below another computation."""


def check_fit(model: nn.Module, name: str, size: int) -> tuple[int, int]:
    """Rows and columns of patches, once one `size` x `size` image has shown that blocks can be read and run again.

    All blocks must pass on the model's own tokens: as many as its prefix and its grid of patches have, the last block's
    being what its features are the norm of, and each block giving the same when it is run again on the tokens before.
    On the meta device shapes alone are compared. Raises UserError that names the network and what does not fit.
    """
    depth = TappedViT(model, [0], name=name).depth
    tapped = TappedViT(model, range(depth), name=name)
    try:
        tapped.check_size(size)
    except (AttributeError, TypeError) as error:
        raise _unfit(name, model, "it has no grid of patches that can be asked for") from error
    grid = _grid(tapped, name, size)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    with evaluating(model), torch.autocast(device.type if device.type != "meta" else "cpu", enabled=False):
        try:
            features = tapped(images)
        except (AssertionError, RuntimeError) as error:  # of the size: timm says which ones it takes
            raise _unreadable(
                name, size, printable((str(error).splitlines() or [""])[0].rstrip(".")) or "no reason"
            ) from error
        except (AttributeError, IndexError, KeyError, NotImplementedError, TypeError, ValueError) as error:
            raise _unfit(name, model, f"a pass over one image ends in {type(error).__name__}: {error}") from error
        _check_finite(name, features)
        problem = (
            _shape_error(tapped, features, grid)
            or _order_error(tapped, features, images)
            or _replay_error(tapped, features)
        )
    if problem:
        raise _unfit(name, model, problem)
    return grid


def _grid(tapped: TappedViT, name: str, size: int) -> tuple[int, int]:
    try:
        grid = tapped.grid(size)
    except (AttributeError, TypeError, ValueError) as error:
        raise _unfit(name, tapped.model, "it has no grid of patches that can be asked for") from error
    if 0 in grid:
        raise _unreadable(name, size, f"its grid of patches would be {grid[0]} x {grid[1]}")
    return grid


def _check_finite(name: str, features: Features) -> None:
    """Weights with a NaN spoil every comparison that follows: they are no matter of the architecture."""
    for tokens in features.tokens.values():
        if isinstance(tokens, torch.Tensor) and not tokens.is_meta and not tokens.isfinite().all():
            raise UserError(f"{name} gives features that are not finite numbers. Give other weights.")


def _shape_error(tapped: TappedViT, features: Features, grid: tuple[int, int]) -> str:
    wanted = tapped.prefix + grid[0] * grid[1]
    for layer in tapped.layers:
        tokens = features.tokens.get(layer)
        if tokens is None:
            return f"block {layer} is never run by its forward_features"
        if not isinstance(tokens, torch.Tensor) or tokens.ndim != 3:
            given = "x".join(map(str, tokens.shape)) if isinstance(tokens, torch.Tensor) else type(tokens).__name__
            return f"block {layer} gives {given}, not [batch, tokens, width]"
        if tokens.shape[1] != wanted:
            return (
                f"block {layer} gives {tokens.shape[1]} tokens, where {tapped.prefix} before the patches and a grid of "
                f"{grid[0]} x {grid[1]} make {wanted}"
            )
        if tokens.shape[2] != tapped.width:
            return f"block {layer} gives tokens of {tokens.shape[2]} values, and the model says {tapped.width}"
    return ""


def _order_error(tapped: TappedViT, features: Features, images: torch.Tensor) -> str:
    """Whether the model's own features are the norm of the last tap, and its prefix stands before its patches."""
    last = features.tokens[tapped.layers[-1]]
    own = tapped.model.forward_features(images)
    if isinstance(own, torch.Tensor) and own.shape != last.shape:
        return f"its features are {_shown(own)}, where its last block gives {_shown(last)}"
    if isinstance(own, torch.Tensor) and not (_same(own, tapped.final_norm(last)) or _same(own, last)):
        return "its features are not the norm of what its last block gives: something else follows"
    ask = getattr(tapped.model, "forward_intermediates", None)
    if ask is None or not tapped.prefix:
        return ""
    try:
        (split,) = ask(
            images,
            indices=[tapped.layers[-1]],
            norm=False,
            intermediates_only=True,
            output_fmt="NLC",
            return_prefix_tokens=True,
        )
        patches, prefix = split
    except (AssertionError, TypeError, ValueError):
        return ""  # not every family can be asked for prefix tokens
    if not (_same(patches, last[:, tapped.prefix :]) and _same(prefix, last[:, : tapped.prefix])):
        return f"its first {tapped.prefix} tokens are not those before the patches"
    return ""


def _replay_error(tapped: TappedViT, features: Features) -> str:
    layers = tapped.layers[1:]
    for layer in dict.fromkeys((*layers[:1], *layers[len(layers) // 2 :][:1], *layers[-1:])):
        try:
            again = tapped.replay(layer, features.tokens[layer - 1], features)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = printable((str(error).splitlines() or [""])[0], 100)
            return f"block {layer} cannot be run again on tokens alone ({type(error).__name__}: {reason})"
        if not isinstance(again, torch.Tensor) or again.shape != features.tokens[layer].shape:
            return f"block {layer}, run again on the tokens before it, gives another shape"
        if not _same(again, features.tokens[layer]):
            return f"block {layer}, run again on the tokens before it, gives something else"
    return ""


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape:
        return False
    if one.is_meta or other.is_meta:
        return True
    one, other = one.float(), other.float()
    return bool((one - other).norm() <= _TOLERANCE * other.norm().clamp_min(1e-12))


def _shown(tokens: torch.Tensor) -> str:
    return " x ".join(str(n) for n in tokens.shape[1:])


def _unfit(name: str, model: nn.Module, error: str) -> UserError:
    return UserError(f"{name} ({type(model).__name__}) cannot be read block by block: {printable(error)}. {USABLE}.")


def _unreadable(name: str, size: int, error: str) -> UserError:
    return UserError(
        f"{name} cannot read images of {size} x {size} pixels ({error}). Give a --data.image_size that it can read, "
        "or name another model."
    )
