"""Files of weights as they are found: wrapped, prefixed, of another size, in half precision, with another head."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from typing import Any

import torch
from timm.models import clean_state_dict, load_state_dict
from torch import nn

from singer_ray.errors import UserError, printable

Weights = dict[str, torch.Tensor]

_WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema_model",
    "ema",
    "teacher",
    "target_encoder",
    "state_dict",
    "model_state_dict",
    "model",
    "student",
    "encoder",
    "backbone",
    "module",
    "weights",
    "params",
)
"""Names under which trainers keep weights in a checkpoint, what is used for inference first."""
_BEST = ("ema", "teacher", "target")
"""Parts of a prefix that mark the better of several networks in one file."""
_ANCHORS = ("patch_embed.proj.weight", "patch_embed.backbone.stem.conv.weight", "pos_embed", "blocks.0.norm1.weight")
"""Names that every Vision Transformer of timm has one of; what stands before them is a wrapper's prefix."""
_HEADS = ("head", "fc", "classifier", "heads", "head_dist")
"""Modules behind the features. No teacher needs them."""


def load_weights(model: nn.Module, path: str, name: str, role: str = "teacher") -> None:
    """Fills `model`, which has no head, with the weights in a file: .safetensors, .pth, .pt, .bin or original .npz.

    `role` is "teacher" or "student", whose setting `checkpoint` names the file. Register tokens that the file lacks
    keep their initial values in a student; a teacher must have all of its own.

    Wrappers ({'model': ...}, EMA, 'teacher': 'module.backbone....') are taken off, position embeddings resampled to the
    model's grid, the names of other code bases translated (timm's own filters), and all is turned into float32. A head
    is left out. Pickled code is never run.

    Raises UserError when the file cannot be read or does not hold every weight of `model`.
    """
    start = f"{role}.checkpoint {path!r}"
    if path.lower().endswith((".npz", ".npy")):
        _load_arrays(model, path, start, name)
        return
    try:
        content: Any = load_state_dict(path, device="cpu", weights_only=True)
    except Exception as error:  # of torch, safetensors, zip and pickle: whatever a strange file brings out
        raise UserError(
            f"{start} cannot be read: {in_one_line(error)}. Give a .safetensors file, or a .pth file of weights alone."
        ) from error
    weights = _bare(content)
    if not weights:
        raise UserError(f"{start} holds no weights. Give a file of a network's state_dict.")
    own = model.state_dict()
    fitted = _filtered(model, adapted(model, weights) if role == "student" else weights)
    problem = misfit_of(own, fitted, weights, name)
    if problem:
        advice = f"Name the architecture that the file is of with --{role}.name, or give another file."
        raise UserError(f"{start} {problem} {advice}")
    model.load_state_dict({key: fitted[key] for key in own})


def adapted(model: Any, weights: Weights) -> Weights:
    """`weights` to start the student `model` from, which may pool in another way and have more tokens.

    A norm behind the pooling becomes the final norm. Where `model` has register tokens and the weights have none, its
    own ones and their positions are put in.
    """
    own = model.state_dict()
    if "norm.weight" in own and "norm.weight" not in weights:
        weights = {re.sub(r"^fc_norm\.", "norm.", key): weight for key, weight in weights.items()}
    count = own["reg_token"].shape[1] if "reg_token" in own else 0
    if not count or any(key.startswith(("reg_token", "register_tokens")) for key in weights):
        return weights
    added = {**weights, "reg_token": own["reg_token"]}
    if "pos_embed" in weights and not getattr(model, "no_embed_class", False):
        first = int(model.num_prefix_tokens) - count
        positions, fresh = weights["pos_embed"], own["pos_embed"][:, first : first + count]
        if positions.ndim == 3 and positions.shape[2] == fresh.shape[2]:  # else the shapes say what does not fit
            added["pos_embed"] = torch.cat([positions[:, :first], fresh, positions[:, first:]], dim=1)
    return added


def in_one_line(error: Exception) -> str:
    """What an error says: of torch's long list of weights that do not fit, the first ones rather than its heading."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if lines[0].startswith("Error(s) in loading state_dict") and len(lines) > 1:
        more = f", and {len(lines) - 2} more" if len(lines) > 2 else ""
        return printable(lines[1].rstrip(". "), 200) + more
    return printable(lines[0].rstrip(". "))


def _load_arrays(model: Any, path: str, start: str, name: str) -> None:
    try:
        model.load_pretrained(path)
    except Exception as error:
        raise UserError(
            f"{start} does not fit {name}: {in_one_line(error)}. Give a .safetensors or .pth file, or name the "
            "architecture that the file is of."
        ) from error


def _bare(content: Any) -> Weights:
    """The network's own weights, without what they are wrapped in; nothing when there are none."""
    for _ in range(5):  # no file nests deeper, and one that does is no checkpoint
        if not isinstance(content, Mapping):
            return {}
        if any(isinstance(value, torch.Tensor) and str(key).endswith("weight") for key, value in content.items()):
            break
        inner = [key for key in (*_WRAPPERS, *content) if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        content = content[inner[0]]
    weights = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    weights = clean_state_dict(weights)
    prefixes = {key[: -len(anchor)] for anchor in _ANCHORS for key in weights if key.endswith(anchor)}
    prefixes = {prefix for prefix in prefixes if prefix == "" or prefix.endswith(".")}
    if prefixes:
        best = min(prefixes, key=lambda p: (p != "", not any(part in p for part in _BEST), len(p), p))
        weights = {key.removeprefix(best): value for key, value in weights.items() if key.startswith(best)}
    weights = {_numbered(key): value.float() if value.is_floating_point() else value for key, value in weights.items()}
    return {key: value for key, value in weights.items() if key.partition(".")[0] not in _HEADS}


def _numbered(key: str) -> str:
    """DINOv2's trainer keeps blocks in chunks, blocks.CHUNK.NUMBER, where the number counts over all chunks."""
    return re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", key)


def _filtered(model: nn.Module, weights: Weights) -> Weights:
    """The same in the names and sizes of `model`, by the filter of its family."""
    translate = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if translate is None:
        return weights
    options = {"adapt_layer_scale": True} if "adapt_layer_scale" in inspect.signature(translate).parameters else {}
    try:
        translated: Weights = translate(dict(weights), model, **options)
        return translated
    except Exception:  # of a file that is of something else: what does not fit is told by name
        return weights


def misfit_of(
    own: Mapping[str, torch.Tensor], fitted: Weights, weights: Weights, name: str, where: str = "the file"
) -> str:
    """Why `weights`, which are `fitted` to the model `name`, are not those that it has; nothing when they are."""
    there = [key for key in own if key in fitted]
    wrong = [key for key in there if fitted[key].shape != own[key].shape]
    missing = [key for key in own if key not in fitted]
    if len(there) <= len(own) // 10:
        return (
            f"is not of {name}: {len(there)} of its {len(own)} weights are in it. The file has "
            f"{_listed(list(weights))}; the model {_listed(list(own))}."
        )
    if wrong:
        first = wrong[0]
        return (
            f"does not fit {name}: {first} is {_size(fitted[first])} in {where} and {_size(own[first])} in the model"
            f"{f' ({len(wrong)} weights differ in size)' if len(wrong) > 1 else ''}."
        )
    if missing:
        extra = [key for key in fitted if key not in own]
        has = f" It has {_listed(extra)} instead." if extra else ""
        return f"lacks {len(missing)} of the {len(own)} weights of {name}: {_listed(missing)}.{has}"
    blocks = {int(key.split(".")[1]) for key in fitted if re.match(r"blocks\.\d+\.", key)}
    known = {int(key.split(".")[1]) for key in own if re.match(r"blocks\.\d+\.", key)}
    if blocks - known:
        return f"has {len(blocks)} blocks, and {name} has {len(known)}."
    return ""


def _listed(names: list[str], most: int = 3) -> str:
    shown = ", ".join(printable(name, 80) for name in names[:most])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > most else shown or "nothing"


def _size(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a single number"
