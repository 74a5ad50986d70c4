"""Checkpoints: whole or refused, and read as they were written before they had a digest."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from singer_ray.errors import UserError
from singer_ray.training import checkpoint


def state(**more: Any) -> dict[str, Any]:
    return {
        "distiller": {"student.model.a": torch.arange(6.0).reshape(2, 3)},
        "optimizer": {},
        "step": 3,
        "median_norms": {3: 1.5},
        "normalization": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
        "metrics": {},
        **more,
    }


def test_any_flipped_bit_is_found() -> None:
    """Those of weights have no other trace: torch loads them."""
    content = checkpoint.to_bytes(state())
    assert checkpoint.from_bytes(content)["step"] == 3
    end = content.rindex(b"singer_ray checkpoint")
    for place in range(0, len(content), 3):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        if place < end:
            with pytest.raises(UserError, match=r"x.pt (was|has|cannot|is no).*Restore it from a copy"):
                checkpoint.from_bytes(bytes(changed), "x.pt")
        else:  # of the digest itself
            with pytest.raises(UserError):
                checkpoint.from_bytes(bytes(changed), "x.pt")


@pytest.mark.parametrize("kept", [0, 1, 20, 500, -1, -100, -200])
def test_one_that_was_cut_off_is_refused(kept: int) -> None:
    with pytest.raises(UserError, match=r"Restore it from a copy"):
        checkpoint.from_bytes(checkpoint.to_bytes(state())[:kept])


def test_torch_loads_it_and_older_ones_are_read_as_before() -> None:
    assert torch.load(io.BytesIO(checkpoint.to_bytes(state())), weights_only=True)["step"] == 3
    older = io.BytesIO()
    torch.save(state(), older)
    assert checkpoint.from_bytes(older.getvalue())["step"] == 3


def test_another_format_is_named() -> None:
    content = checkpoint.to_bytes(state()).replace(b"checkpoint, format 1,", b"checkpoint, format 7,")
    with pytest.raises(UserError, match=r"has the format 7, not 1. Use the singer_ray that wrote it"):
        checkpoint.from_bytes(content)


class _Planted:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def test_nothing_in_it_is_run(tmp_path: Path) -> None:
    planted = checkpoint.to_bytes(state(step=_Planted(tmp_path / "mark")))
    for content in (planted, pickle.dumps(_Planted(tmp_path / "mark"))):
        with pytest.raises(UserError, match=r"checkpoint.pt (cannot be read|was cut off)"):
            checkpoint.from_bytes(content)
    assert not (tmp_path / "mark").exists()
    pickle.loads(pickle.dumps(_Planted(tmp_path / "mark")))
    assert (tmp_path / "mark").exists(), "the test plants nothing that could run"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"distiller": [1]}, "it has no distiller"),
        ({"step": "3"}, "it has no step"),
        ({"distiller": {"a": 1}}, "its weights are no tensors"),
        ({"normalization": {"mean": (0.5,), "std": (0.5, 0.5, 0.5)}}, "its normalization is not that of images"),
        ({"median_norms": {3: "x"}}, "its median norms are no numbers"),
    ],
)
def test_one_of_something_else_is_said(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=rf"p.pt is no checkpoint of singer_ray: {said}. Restore"):
        checkpoint.from_bytes(checkpoint.to_bytes(state(**given)), "p.pt")
    with pytest.raises(UserError, match=r"p.pt is no checkpoint of singer_ray: it has no overrides"):
        checkpoint.from_bytes(checkpoint.to_bytes(state(history=[], seconds=1.0)), "p.pt", checkpoint.TRIAL)
