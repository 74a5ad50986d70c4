"""A student (or a teacher) as a folder that timm loads: `timm.create_model("local-dir:DIR", pretrained=True)`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError
from timm.models import save_for_hf
from torch import nn

from singer_ray.config.formats import FORMAT
from singer_ray.evaluation.linear_head import LinearHead, write_head
from singer_ray.layout import CARD, CONFIG, RESULT, WEIGHTS
from singer_ray.publishing.card import card
from singer_ray.publishing.packages.manifest import Manifest, write_manifest
from singer_ray.publishing.result import parsed, scrubbed, write_json
from singer_ray.storage import write_whole
from singer_ray.vision.models import Normalization


@dataclass(frozen=True)
class InputSpec:
    """How images must be prepared for a network."""

    size: int
    crop_pct: float
    normalization: Normalization


def write_model(folder: Path, model: nn.Module, inputs: InputSpec) -> None:
    """config.json (architecture, model_args, input scaling) and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    data_config = {
        "input_size": (3, inputs.size, inputs.size),
        "crop_pct": inputs.crop_pct,
        "mean": inputs.normalization.mean,
        "std": inputs.normalization.std,
    }
    # The registry's metadata of the architecture (its published weights, licence, paper) is not this model's.
    own = {
        "hf_hub_id": None,
        "url": "",
        "file": None,
        "tag": None,
        "license": None,
        "origin_url": None,
        "paper_ids": None,
    }
    model.cpu()
    try:
        save_for_hf(
            model, str(folder), model_config={"pretrained_cfg": own}, data_config=data_config, safe_serialization=True
        )
    except SafetensorError as error:  # safetensors raises this, not OSError, when the disk is full
        raise OSError(str(error)) from error
    (folder / WEIGHTS).chmod(0o644)  # safetensors lets only the owner read it; packages are for others


def write_student(
    folder: Path, model: nn.Module, inputs: InputSpec, result: Mapping[str, Any], head: LinearHead | None = None
) -> None:
    """The model with result.json, the resolved configuration (config.yaml), a linear head where there is one, the card
    (README.md) and MANIFEST.json.

    Pictures that are already in FOLDER/pictures are shown in the card. After adding or changing a file, call `seal`.
    """
    result = scrubbed(result)
    write_model(folder, model, inputs)
    if head is not None:
        write_head(folder, head)
    write_whole(folder / CONFIG, yaml.safe_dump({"format": FORMAT, **result["config"]}, sort_keys=False))
    write_json(folder / RESULT, result)
    seal(folder)


def seal(folder: Path) -> Manifest:
    """Rewrites the card and the manifest of a student's folder from its current files."""
    result = parsed((folder / RESULT).read_bytes(), str(folder / RESULT))
    write_whole(folder / CARD, card(result, folder))
    return write_manifest(folder)
