"""A student for other runtimes: ONNX, and a torch.export program."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import nn

from singer_ray.errors import UserError, first_line
from singer_ray.layout import HEAD, ONNX, PROGRAM

TOLERANCE = 1e-4
"""Largest difference between ONNX Runtime and torch, absolute and relative."""
_LARGE = 1_900_000_000
"""Bytes of weights above which ONNX keeps them in a file of their own (a protobuf holds 2 GB)."""


class Outputs(nn.Module):
    """pixels [batch, 3, size, size] -> tokens [batch, tokens, dim], pooled [batch, dim], and logits with a head.

    `tokens` are timm's forward_features: prefix tokens (class, registers) first, then the patches row by row, final
    norm applied; `pooled` is what the model returns.
    """

    def __init__(self, model: nn.Module, head: nn.Linear | None) -> None:
        super().__init__()
        self.model, self.head = model, head

    @property
    def names(self) -> list[str]:
        return ["tokens", "pooled", *(["logits"] if self.head is not None else [])]

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        model: Any = self.model
        tokens = model.forward_features(pixels)
        pooled = model.forward_head(tokens)
        return (tokens, pooled) if self.head is None else (tokens, pooled, self.head(pooled))


def onnx_available() -> bool:
    """Whether the extra `onnx` is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("onnx", "onnxscript", "onnxruntime"))


def open_outputs(folder: Path) -> tuple[Outputs, torch.Tensor]:
    """The student in a package's folder, and a batch of two random images for it."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    head = None
    if (folder / HEAD).is_file():
        weights = load_file(folder / HEAD)
        head = nn.Linear(weights["weight"].shape[1], weights["weight"].shape[0])
        head.load_state_dict(weights)
    size: tuple[int, ...] = timm.data.resolve_model_data_config(model)["input_size"]
    return Outputs(model, head).eval(), torch.randn(2, *size, generator=torch.Generator().manual_seed(0))


def write_onnx(folder: Path) -> None:
    """Writes model.onnx into a package's folder, for any batch size, and compares ONNX Runtime with torch.

    Raises UserError when the extra is not installed, the network cannot be exported, or results differ.
    """
    if not onnx_available():
        raise UserError(
            "model.onnx needs the extra onnx. Install it: pip install 'singer-ray[onnx]'; or --export.onnx no."
        )
    outputs, pixels = open_outputs(folder)
    large = sum(p.numel() * p.element_size() for p in outputs.parameters()) > _LARGE
    try:
        with _quiet(), torch.no_grad():
            torch.onnx.export(
                outputs,
                (pixels,),
                str(folder / ONNX),
                dynamo=True,
                external_data=large,
                verbose=False,
                input_names=["pixels"],
                output_names=outputs.names,
                dynamic_shapes={"pixels": {0: torch.export.Dim("batch")}},
            )
    except Exception as error:
        (folder / ONNX).unlink(missing_ok=True)
        raise UserError(
            f"{_name(folder)} cannot be written as ONNX: {first_line(error)[:200]}. Use --export.onnx no."
        ) from error
    (folder / ONNX).chmod(0o644)
    difference = onnx_difference(folder, outputs, pixels)
    if difference:
        (folder / ONNX).unlink(missing_ok=True)
        raise UserError(f"{_name(folder)}: model.onnx {difference} Use --export.onnx no.")


def onnx_difference(folder: Path, outputs: Outputs, pixels: torch.Tensor) -> str | None:
    """Which output of model.onnx differs from torch, and by how much, for batches of two and of one; else None."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(folder / ONNX), options, providers=["CPUExecutionProvider"])
    for batch in (pixels, pixels[:1]):
        with torch.no_grad():
            expected = outputs(batch)
        for name, ours, theirs in zip(outputs.names, expected, session.run(outputs.names, {"pixels": batch.numpy()})):
            result = torch.from_numpy(theirs)
            if result.shape != ours.shape or not torch.allclose(result, ours, rtol=TOLERANCE, atol=TOLERANCE):
                largest = float((result - ours).abs().max()) if result.shape == ours.shape else float("nan")
                return f"gives other {name} than torch (by {largest:.1e}, allowed {TOLERANCE:g})."
    return None


def write_program(folder: Path) -> None:
    """Writes model.pt2 for `torch.export.load(...).module()(pixels)`, for any batch size. Raises UserError."""
    outputs, pixels = open_outputs(folder)
    try:
        with _quiet(), torch.no_grad():
            shapes = {"pixels": {0: torch.export.Dim("batch")}}
            torch.export.save(torch.export.export(outputs, (pixels,), dynamic_shapes=shapes), folder / PROGRAM)
    except Exception as error:
        (folder / PROGRAM).unlink(missing_ok=True)
        raise UserError(
            f"{_name(folder)} cannot be written as a torch.export program: {first_line(error)[:200]}. "
            "Use --export.program False."
        ) from error
    (folder / PROGRAM).chmod(0o644)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter's own progress reports."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _name(folder: Path) -> str:
    return f"Student {folder.name}"
