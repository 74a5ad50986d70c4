"""Checkpoints: a member's state as a file or as bytes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from singer_ray.errors import UserError

FILE = "checkpoint.pt"


def to_bytes(state: dict[str, Any]) -> bytes:
    """A state as bytes, to be handed through Ray."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def from_bytes(content: bytes) -> dict[str, Any]:
    """A state from `to_bytes`, on the CPU."""
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def save(folder: Path, state: dict[str, Any]) -> None:
    """Writes checkpoint.pt whole or not at all: a crash leaves the earlier one."""
    draft = folder / f"{FILE}.part"
    draft.write_bytes(to_bytes(state))
    draft.replace(folder / FILE)


def load(folder: Path) -> dict[str, Any]:
    """The state in checkpoint.pt. Raises UserError when there is none or it cannot be read."""
    path = folder / FILE
    if not path.is_file():
        raise UserError(f"{folder} has no {FILE}: no epoch was finished there. Start again with --overwrite.")
    try:
        return from_bytes(path.read_bytes())
    except Exception as error:
        raise UserError(f"{path} cannot be read ({error}). Start again with --overwrite.") from error
