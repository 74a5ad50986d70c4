"""Checkpoints: a trainer's state as a file or as bytes, with a digest by which a spoilt one is told.

A checkpoint is what torch.save writes, and can be loaded by torch.load; the digest stands in the comment at the end of
its ZIP archive. One without a comment is of a version that wrote none, and is read as it was then.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from singer_ray.errors import UserError, first_line, printable
from singer_ray.layout import CHECKPOINT
from singer_ray.storage import write_whole

FORMAT = 1
RESTORE = "Restore it from a copy."
RESTART = "Restore it from a copy, or start again with --overwrite."
RETRY = "Restore it from a copy, or remove it: its trial then starts again."
Needed = Mapping[str, type | tuple[type, ...]]
"""Names in a state, and what each must be."""
MEMBER: Needed = {
    "distiller": Mapping,
    "optimizer": Mapping,
    "step": int,
    "median_norms": Mapping,
    "normalization": Mapping,
}
"""What every trainer's state has."""
TRIAL: Needed = {**MEMBER, "metrics": Mapping, "history": list, "seconds": (int, float), "overrides": Mapping}
"""What that of a trial has."""
_COMMENT = b"singer_ray checkpoint, format %d, SHA-256 of all bytes before this comment and its length: %b"
_WRITTEN = re.compile(_COMMENT.replace(b"%d", rb"(\d{1,4})").replace(b"%b", rb"([0-9a-f]{64})") + rb"\Z")
_LONGEST = 200
_END = b"PK\x05\x06"
"""Begins the last record of a ZIP archive, which ends with the length of the comment in two bytes, and the comment."""


def to_bytes(state: dict[str, Any]) -> bytes:
    """A state as bytes, to be handed through Ray."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    if content[-22:-18] != _END or content[-2:] != b"\0\0":
        raise RuntimeError("torch.save has not written a ZIP archive")
    body = content[:-2]
    comment = _COMMENT % (FORMAT, hashlib.sha256(body).hexdigest().encode())
    return b"".join((body, len(comment).to_bytes(2, "little"), comment))


def from_bytes(
    content: bytes, where: str = CHECKPOINT, needed: Needed = MEMBER, advice: str = RESTORE
) -> dict[str, Any]:
    """A state from `to_bytes`, on the CPU, which has what is `needed`.

    Raises UserError, which names `where` and gives `advice`, for one that was changed, cut off, or is something else.
    """
    _check_digest(content, where, advice)
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # of torch, of its unpickler, of ZIP
        raise _damaged(where, f"cannot be read ({printable(first_line(error), 150)})", advice) from error
    problem = _problem(state, needed)
    if problem:
        raise _damaged(where, f"is no checkpoint of singer_ray: {problem}", advice)
    checked: dict[str, Any] = state
    return checked


def save(folder: Path, state: dict[str, Any]) -> None:
    """Writes checkpoint.pt whole or not at all: a crash leaves the earlier one."""
    write_whole(folder / CHECKPOINT, to_bytes(state), synced=True)


def load(folder: Path) -> dict[str, Any]:
    """The state in checkpoint.pt. Raises UserError when there is none or it cannot be read."""
    path = folder / CHECKPOINT
    if not path.is_file():
        raise UserError(f"{folder} has no {CHECKPOINT}: no epoch was finished there. Start again with --overwrite.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _damaged(str(path), f"cannot be read ({error.strerror})", RESTART) from error
    return from_bytes(content, str(path), {**MEMBER, "metrics": Mapping}, RESTART)


def _check_digest(content: bytes, where: str, advice: str) -> None:
    if content[-22:-18] == _END and content[-2:] == b"\0\0":
        return  # of a version that wrote no digest
    written = _WRITTEN.search(content[-_LONGEST:])
    if written is None or content[-len(written[0]) - 2 : -len(written[0])] != len(written[0]).to_bytes(2, "little"):
        raise _damaged(where, "was cut off or changed: it has no digest", advice)
    if int(written[1]) != FORMAT:
        raise UserError(f"{where} has the format {int(written[1])}, not {FORMAT}. Use the singer_ray that wrote it.")
    if hashlib.sha256(memoryview(content)[: -len(written[0]) - 2]).hexdigest().encode() != written[2]:
        raise _damaged(where, "was changed since it was written: its digest does not fit", advice)


def _problem(state: Any, needed: Needed) -> str | None:
    if not isinstance(state, dict):
        return f"it holds a {type(state).__name__}"
    for name, kind in needed.items():
        if not isinstance(state.get(name), kind):
            return f"it has no {name}"
    scaling, norms = state["normalization"], state["median_norms"]
    if not all(_are_numbers(scaling.get(name), 3) for name in ("mean", "std")):
        return "its normalization is not that of images"
    if not _are_numbers(norms.values()):
        return "its median norms are no numbers"
    average = state.get("average", {})
    if not isinstance(average, Mapping):
        return "its average of weights is none"
    if not all(isinstance(weight, torch.Tensor) for weight in (*state["distiller"].values(), *average.values())):
        return "its weights are no tensors"
    return None


def _are_numbers(values: Any, count: int | None = None) -> bool:
    if not isinstance(values, Iterable):
        return False
    numbers = list(values)
    return len(numbers) == (count or len(numbers)) and all(isinstance(value, (int, float)) for value in numbers)


def _damaged(where: str, why: str, advice: str) -> UserError:
    return UserError(f"{printable(where)} {why}. {advice}")
