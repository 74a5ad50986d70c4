"""A student's initial weights taken from its teacher: evenly spaced blocks, and the leading channels of each.

After the weight copying of WeCoLoRA (arXiv 2404.09326), written from the paper, and extended to narrower students.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from timm.layers import GluMlp, resample_abs_pos_embed, resample_patch_embed

from singer_ray.errors import UserError
from singer_ray.vision.tapped import TappedViT

ADVICE = "Use --student.init random, or a student of the teacher's architecture that is neither wider nor deeper."
_TOKENS = ("cls_token", "dist_token", "reg_token")
"""In the order in which timm puts them before the patches."""
_FREE = ("head.", "head_dist.", "fc_norm.", "norm.", *_TOKENS)
"""Beginnings of the names of weights that one of the two may lack."""
_BY_HEAD = {
    "attn.qkv.": 3,
    **dict.fromkeys(("attn.q_", "attn.k_", "attn.v_"), 1),
    "attn.norm.": 1,
}
"""Beginnings of weights whose rows are the channels of heads -> how many such parts stand one below another."""
_WHOLE_HEADS = ("attn.q_norm.", "attn.k_norm.")
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
State = Mapping[str, torch.Tensor]


def check_copy(student: TappedViT, teacher: TappedViT) -> None:
    """Raises UserError, in one line, for a student that cannot take its weights from the teacher; asks shapes alone."""
    start = "student.init copy: "
    for what, own, most in (("wide", student.width, teacher.width), ("deep", student.depth, teacher.depth)):
        if own > most:
            raise UserError(f"{start}{student.name} is {own} {what}, {teacher.name} {most}. {ADVICE}")
    kinds = [type(network.blocks[0]) for network in (student, teacher)]
    if kinds[0] is not kinds[1] or not hasattr(student.blocks[0], "attn"):
        raise UserError(
            f"{start}{student.name} is a {type(student.model).__name__} with blocks of {kinds[0].__module__}, "
            f"{teacher.name} a {type(teacher.model).__name__} with blocks of {kinds[1].__module__}. {ADVICE}"
        )
    mine, full = (dict(network.model.state_dict()) for network in (student, teacher))
    for one, other, names in (
        (student, teacher, _needed(mine) - _needed(full)),
        (teacher, student, _needed(full) - _needed(mine)),
    ):
        if names:
            raise UserError(f"{start}{one.name} has {', '.join(sorted(names)[:3])}; {other.name} has not. {ADVICE}")
    for name in mine:
        if name.startswith("blocks.0.") and not _is_part(name, mine[name].shape, full[name].shape):
            sizes = [" x ".join(map(str, weights[name].shape)) for weights in (mine, full)]
            raise UserError(
                f"{start}{name} is {sizes[0]} in {student.name} and {sizes[1]} in {teacher.name}, which has no such "
                f"part. {ADVICE}"
            )


@torch.no_grad()
def copy_teacher(student: TappedViT, teacher: TappedViT, blocks: Sequence[int]) -> None:
    """Fills `student` with weights of `teacher`, which is only read: block n from the teacher's block `blocks[n]`.

    Widths are cut to the leading channels. Heads stay whole where both networks have heads of one size, and are cut
    to their leading channels where the student's are smaller; a student with more heads than its teacher takes the
    leading channels of all of them together. Positions and the patch embedding are resampled to the student's grid and
    patches. Tokens that the teacher lacks, and a final norm that it has elsewhere, keep their initial values.

    Raises UserError as `check_copy` does.
    """
    check_copy(student, teacher)
    full: State = teacher.model.state_dict()
    for name, weight in student.model.state_dict().items():
        found = _BLOCK.fullmatch(name)
        if found:
            source = full[f"blocks.{blocks[int(found[1])]}.{found[2]}"]
            weight.copy_(_cut(found[2], source, weight.shape, student, teacher))
        elif name == "patch_embed.proj.weight":
            weight.copy_(_leading(resample_patch_embed(full[name], list(weight.shape[2:])), weight.shape))
        elif name.startswith("rope."):  # of rotary positions, which depend on the grid
            weight.copy_(full[name] if full[name].shape == weight.shape else weight)
        elif name in full and name not in ("pos_embed", *_TOKENS):
            weight.copy_(_leading(full[name], weight.shape))
    _copy_tokens(student.model, teacher.model)


def _needed(names: Iterable[str]) -> set[str]:
    """Names of weights, those of all blocks as one, without those that may be missing."""
    return {re.sub(r"^blocks\.\d+\.", "blocks.N.", name) for name in names if not name.startswith(_FREE)}


def _is_part(name: str, mine: torch.Size, full: torch.Size) -> bool:
    if "relative_position" in name and mine[0] != full[0]:  # a table over places of another grid
        return False
    return len(mine) == len(full) and all(a <= b for a, b in zip(mine, full))


def _leading(source: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The first entries along every dimension."""
    return source[tuple(slice(size) for size in shape)]


def _cut(name: str, source: torch.Tensor, shape: torch.Size, student: TappedViT, teacher: TappedViT) -> torch.Tensor:
    """The part of a block's weight that a block of the student takes."""
    parts = next((count for start, count in _BY_HEAD.items() if name.startswith(start)), 0)
    if parts and not name.startswith(_WHOLE_HEADS):
        rows = source.unflatten(0, (parts, -1))
        return _leading(rows[:, _channels(rows.shape[1], shape[0] // parts, student, teacher)].flatten(0, 1), shape)
    if name == "attn.proj.weight":
        return _leading(source[:, _channels(source.shape[1], shape[1], student, teacher)], shape)
    mlp: Any = getattr(teacher.blocks[0], "mlp", None)
    if name.startswith("mlp.fc1.") and isinstance(mlp, GluMlp):  # values and gates, one below the other
        return _leading(source.unflatten(0, (2, -1))[:, : shape[0] // 2].flatten(0, 1), shape)
    return _leading(source, shape)


def _channels(full: int, mine: int, student: TappedViT, teacher: TappedViT) -> torch.Tensor:
    """Which of the `full` channels of the teacher's heads the `mine` ones of the student's take."""
    heads, most = _heads(student), _heads(teacher)
    size, largest = mine // heads, full // most
    if heads <= most and size <= largest:
        return (torch.arange(heads)[:, None] * largest + torch.arange(size)).flatten()
    return torch.arange(mine)


def _heads(network: TappedViT) -> int:
    attention: Any = network.blocks[0].attn
    return int(attention.num_heads)


def _positions(network: Any) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Views of the learned positions of prefix tokens and of patches, [1, tokens, width]; None where there are none."""
    learned = getattr(network, "pos_embed", None)
    if learned is None:
        return None, None
    if getattr(network, "no_embed_class", False):
        return None, learned.data
    prefix = int(network.num_prefix_tokens)
    return learned.data[:, :prefix], learned.data[:, prefix:]


def _copy_tokens(student: Any, teacher: Any) -> None:
    """Prefix tokens with their positions, and the positions of the patches.

    Where only one network has positions for its prefix tokens, they are taken as part of the tokens, so that the sum is
    the teacher's.
    """
    width = int(student.embed_dim)
    (prefix, patches), (full_prefix, full_patches) = _positions(student), _positions(teacher)
    own_place = place = 0
    for name in _TOKENS:
        own, full = getattr(student, name, None), getattr(teacher, name, None)
        if own is not None and full is not None:
            count = min(own.shape[1], full.shape[1])
            token = full[:, :count, :width]
            row = torch.zeros_like(token) if full_prefix is None else full_prefix[:, place : place + count, :width]
            if prefix is None:
                token = token + row
            else:
                prefix[:, own_place : own_place + count] = row
            own[:, :count] = token
        own_place += 0 if own is None else own.shape[1]
        place += 0 if full is None else full.shape[1]
    if patches is not None and full_patches is not None:
        grids = [list(network.patch_embed.grid_size) for network in (student, teacher)]
        patches.copy_(resample_abs_pos_embed(full_patches, *grids, num_prefix_tokens=0)[..., :width])
