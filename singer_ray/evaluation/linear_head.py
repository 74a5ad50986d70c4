"""A linear classifier for a student, in the form that timm's model loads as its classifier."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from singer_ray.errors import UserError
from singer_ray.evaluation.probes import fit_classifier
from singer_ray.evaluation.suite import FIT, ProbeSuite, Reader
from singer_ray.layout import CLASSES, HEAD
from singer_ray.storage import read_json, write_whole


@dataclass(frozen=True)
class LinearHead:
    """logits = pooled @ weight.T + bias, where `pooled` [batch, dim] is what timm's model returns for images."""

    weight: torch.Tensor
    """float32 [classes, dim]"""
    bias: torch.Tensor
    """float32 [classes]"""
    classes: tuple[str, ...]


def linear_head(suite: ProbeSuite, reader: Reader) -> LinearHead | None:
    """The linear probe of a network: pooled features after the final norm, fitted on the probes' training images.

    None when these have no labels, or only one class. It classifies exactly as the probe behind the metric
    `after_norm/linear_top1`.
    """
    source = suite.sources.get(FIT)
    if source is None or "label" not in source.fields:
        return None
    labels = suite.annotations(FIT, reader.grid, reader.covered).labels
    assert labels is not None, "the source says that it has labels"
    if labels.unique().numel() < 2:
        return None
    pooled = suite.features(reader, FIT)["after_norm"].pooled
    probe = fit_classifier(pooled, labels, len(source.classes), suite.settings.l2)
    weight = probe.weight / probe.std[:, None]  # the standardisation goes into weights and bias
    bias = probe.bias - probe.mean @ weight
    return LinearHead(weight.T.contiguous().cpu(), bias.cpu(), tuple(source.classes))


def write_head(folder: Path, head: LinearHead) -> None:
    """head.safetensors (weight, bias) and classes.json (their names, in order)."""
    save_file({"weight": head.weight, "bias": head.bias}, folder / HEAD)
    (folder / HEAD).chmod(0o644)
    write_whole(folder / CLASSES, json.dumps(head.classes, indent=1, ensure_ascii=False) + "\n")


def classes_of(folder: Path) -> list[str]:
    """The class names of a package's head; empty where it has none."""
    path = folder / CLASSES
    if not path.is_file():
        return []
    classes = read_json(path.read_bytes(), str(path))
    if not isinstance(classes, list):
        raise UserError(f"{path} holds no list of class names. Restore it.")
    return [str(name) for name in classes]
