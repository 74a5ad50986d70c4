"""A student (or a teacher) as a folder that timm loads: `timm.create_model("local-dir:DIR", pretrained=True)`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from timm.models import save_for_hf
from torch import nn

from singer_ray.publishing.result import write_json
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
    save_for_hf(
        model, str(folder), model_config={"pretrained_cfg": own}, data_config=data_config, safe_serialization=True
    )
    (folder / "model.safetensors").chmod(0o644)  # written for the owner alone; a delivery is for others


def write_student(folder: Path, model: nn.Module, inputs: InputSpec, result: Mapping[str, Any]) -> None:
    """The model with result.json, the resolved configuration (config.yaml) and a README card."""
    write_model(folder, model, inputs)
    (folder / "config.yaml").write_text(yaml.safe_dump(result["config"], sort_keys=False), encoding="utf-8")
    (folder / "README.md").write_text(card(result, model), encoding="utf-8")
    write_json(folder / "result.json", result)


def card(result: Mapping[str, Any], model: nn.Module) -> str:
    """The README of a student: what it is, how to load it, how it was made, how good it is."""
    config, metrics = result["config"], result["metrics"]
    parameters = sum(p.numel() for p in model.parameters())
    method, train = config["method"], config["train"]
    remedy = (
        f"SiNGER adapter of rank {method['rank']}, strength {method['strength']:.3g}, lambda_outlier "
        f"{method['loss']['outlier']:.3g}, lambda_info {method['loss']['info']:.3g}, "
        f"gamma {method['outlier_quantile']:.3g}"
        if method["refiner"] == "singer"
        else "none (plain feature distillation)"
    )
    scored = [(name, metrics.get(f"val/{name}"), metrics.get(f"test/{name}")) for name in _score_names(metrics)]
    rows = [f"| {name} | {_cell(val)} | {_cell(test)} |" for name, val, test in scored]
    norms = [f"| {name} | {value:.2f} |" for name, value in metrics.items() if "/max_median_norm/" in name]
    return f"""# {config["student"]["name"]} distilled from {config["teacher"]["name"]}

A Vision Transformer of {parameters:,} parameters without a classification head, trained by singer_ray to reproduce the
features of `{config["teacher"]["name"]}`.

```python
import timm
model = timm.create_model("local-dir:PATH_OF_THIS_FOLDER", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
tokens = model.forward_features(transform(image)[None])   # prefix and patch tokens, final norm applied
```

## How it was made

- Refinement of the teacher's features: {remedy}
- {result["epochs"]} epochs, batch {train["batch_size"]}, AdamW {train["lr"]:.3g}, seed {config["seed"]}
- The whole configuration is in `config.yaml`; `python -m singer_ray.train --preset config.yaml` trains it again.

## How good it is

Probes on frozen last-block features, pooled by `{config["evaluation"]["pooling"]}`, before the final norm;
`after_norm/` is what `forward_features` gives. Selected on validation; the test split was read once.

| metric | validation | test |
| --- | --- | --- |
{chr(10).join(rows) or "| (the data has no annotations) | | |"}

Largest over median patch norm, mean over images:

| network and layer | ratio |
| --- | --- |
{chr(10).join(norms)}

Versions: {json.dumps(result["versions"])}
"""


def _score_names(metrics: Mapping[str, float]) -> list[str]:
    names = [name.partition("/")[2] for name in metrics if name.startswith(("val/", "test/"))]
    return sorted(set(names), key=lambda name: ("after_norm" in name, name))


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
