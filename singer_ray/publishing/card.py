"""The README of a student: what it is, how to load it, how it was made, how good it is."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import timm
import yaml
from safetensors import SafetensorError, safe_open

from singer_ray.config.sources import FROM_PYTHON, SOURCES
from singer_ray.errors import UserError, code, markdown, printable
from singer_ray.evaluation.linear_head import classes_of
from singer_ray.layout import HEAD, MODEL_CONFIG, NORM_MAPS, ONNX, PCA, PICTURES, PROGRAM, WEIGHTS
from singer_ray.storage import read_json_mapping

_CAPTIONS = {
    NORM_MAPS: "Patch norms over the median of the image: teacher, what the student is shown, student.",
    PCA: "Patch features as colours: the first three principal components of the teacher's normal tokens.",
}
_SHOWN_CLASSES = 12


def card(result: Mapping[str, Any], folder: Path) -> str:
    """The card of the student in `folder`, from its result.json and the files beside it.

    `result["search"]`, where a search made the student, says which (see `singer_ray.publishing.experiment`).
    """
    path = folder / MODEL_CONFIG
    try:
        architecture = read_json_mapping(path.read_bytes(), str(path))
        return _card(result, architecture, folder)
    except OSError as error:
        raise UserError(f"{printable(path)} cannot be read: {error.strerror}. Restore it.") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, SafetensorError) as error:
        raise UserError(
            f"{printable(folder)} holds no student of singer_ray: {type(error).__name__} ({printable(error)}) in its "
            "config.json, result.json or model.safetensors. Restore them."
        ) from error


def _card(result: Mapping[str, Any], architecture: Mapping[str, Any], folder: Path) -> str:
    config = result["config"]
    student, teacher = config["student"]["name"], config["teacher"]["name"]
    parts = [
        _front_matter(result),
        f"# {markdown(student)} distilled from {markdown(teacher)}",
        f"A Vision Transformer of {_parameters(folder):,} parameters, {int(architecture['num_features'])} features "
        f"wide, trained by singer_ray to reproduce the features of {code(teacher)}, "
        + ("with a linear classification head beside it." if classes_of(folder) else "without a classification head."),
        "## How to load it",
        _loading(architecture, folder),
        "## How it was made",
        _making(result),
        "## How good it is",
        _scores(result),
        *_pictures(folder),
        "## Licence",
        _licence(result),
        "## Versions",
        ", ".join(f"{markdown(name)} {markdown(version)}" for name, version in result["versions"].items())
        + (f"; singer_ray at commit {markdown(result['git_commit'])}" if result.get("git_commit") else "")
        + ".",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(result: Mapping[str, Any]) -> str:
    """What the Hugging Face Hub reads."""
    config = result["config"]
    tags = ["vision-transformer", "knowledge-distillation", "feature-extraction", "singer"]
    head: dict[str, Any] = {
        "library_name": "timm",
        "license": _own_licence(result) or "unknown",
        "pipeline_tag": "image-feature-extraction",
        "tags": tags if config["method"]["refiner"] == "singer" else tags[:-1],
    }
    published = _published(config["teacher"]["name"])
    if config["teacher"]["name"].startswith("hf-hub:"):
        head["base_model"] = config["teacher"]["name"].removeprefix("hf-hub:")
    elif published.get("hf_hub_id"):
        head["base_model"] = published["hf_hub_id"]
    lines = {
        k: [printable(v) for v in value] if isinstance(value, list) else printable(value) for k, value in head.items()
    }
    return f"---\n{yaml.safe_dump(lines, sort_keys=False, width=10_000)}---"


def _loading(architecture: Mapping[str, Any], folder: Path) -> str:
    pretrained = architecture["pretrained_cfg"]
    _, height, width = map(int, pretrained["input_size"])
    dim, classes = int(architecture["num_features"]), classes_of(folder)
    pooling = re.sub(r"\W", "", str(architecture.get("global_pool", "avg")))
    text = f"""```python
import timm
model = timm.create_model("local-dir:PATH_OF_THIS_FOLDER", pretrained=True).eval()   # or "hf-hub:OWNER/NAME"
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
pixels = transform(image)[None]              # [1, 3, {height}, {width}]
tokens = model.forward_features(pixels)      # [1, prefix + patches, {dim}], final norm applied
patches = tokens[:, model.num_prefix_tokens:]   # row by row, for dense tasks
pooled = model(pixels)                       # [1, {dim}], pooled by {pooling}
```

Input: {height} x {width} pixels, centre crop {pretrained["crop_pct"]:g}, mean {_numbers(pretrained["mean"])}, standard
deviation {_numbers(pretrained["std"])}."""
    if classes:
        names = ", ".join(markdown(name, 100) for name in classes[:_SHOWN_CLASSES]) + (
            ", ..." if len(classes) > _SHOWN_CLASSES else ""
        )
        text += f"""

`{HEAD}` is a linear classifier of `pooled` (the linear probe behind `after_norm/linear_top1` below), for
{len(classes)} classes: {names}. Names in order: `classes.json`.

```python
from safetensors.torch import load_file
model.reset_classifier({len(classes)})
model.get_classifier().load_state_dict(load_file("PATH_OF_THIS_FOLDER/{HEAD}"))
logits = model(pixels)                       # [1, {len(classes)}]
```"""
    outputs = "`tokens`, `pooled`" + (" and `logits`" if classes else "")
    if (folder / ONNX).is_file():
        text += f"""

`{ONNX}`: the same network for ONNX Runtime, `pixels` (float32, scaled as above, any batch size) to {outputs}:

```python
import onnxruntime
session = onnxruntime.InferenceSession("PATH_OF_THIS_FOLDER/{ONNX}")
tokens, pooled = session.run(["tokens", "pooled"], {{"pixels": pixels.numpy()}})
```"""
    if (folder / PROGRAM).is_file():
        program = f'torch.export.load("PATH_OF_THIS_FOLDER/{PROGRAM}").module()'
        text += f"\n\n`{PROGRAM}`: `{program}(pixels)` gives {outputs}."
    return text + (
        "\n\n`python -m singer_ray.export --verify PATH_OF_THIS_FOLDER` compares every file with MANIFEST.json. To put "
        "it on the Hugging Face Hub: `hf upload OWNER/NAME PATH_OF_THIS_FOLDER`."
    )


def _making(result: Mapping[str, Any]) -> str:
    config, search = result["config"], result.get("search")
    train, teacher, data = config["train"], config["teacher"], config["data"]
    lines = [
        f"Teacher: {code(teacher['name'])}"
        + (f", weights of {code(teacher['checkpoint'])}" if teacher["checkpoint"] else "")
        + f"; distilled layers {markdown(_listed(teacher['layers'])) or 'at 3/4 of the depth and the last'}.",
        f"Student: {_student(config)}.",
        f"Data: {_data(data)}, {int(data['image_size'])} x {int(data['image_size'])} pixels, augmentation "
        f"{markdown(data['augment'])}.",
        f"Refinement of the teacher's features: {_remedy(config['method'])}; projector "
        f"{markdown(config['method'].get('projector', 'linear'))}.",
        (f"{int(result['epochs'])} of {int(train['epochs'])} epochs" if result.get("epochs") else "Trained")
        + (" (the search stopped it early)" if search and search.get("state") == "PRUNED" else "")
        + f", batch {int(train['batch_size'])}, AdamW, learning rate {train['lr']:.3g}, weight decay "
        f"{train['weight_decay']:.3g}, warm-up {train['warmup']:.3g}, drop path {train['drop_path']:.3g}, seed "
        f"{int(config['seed'])}, {result['seconds']:.0f} s"
        + (f"; weights and scores are of their moving average, decay {train['ema']:g}." if train.get("ema") else "."),
    ]
    if search:
        lines.append(
            f"Trial {markdown(search['trial'])} of the search {code(search['name'])}, rank "
            f"{int(search['rank'])} of {int(search['trials'])} by "
            f"{markdown(', '.join(search['objectives'])) or 'its metric'}."
        )
        searched = ", ".join(f"{markdown(n)} = {markdown(_value(v))}" for n, v in search["parameters"].items())
        lines.append(f"Searched: {searched}.")
    return (
        "\n".join(f"- {line}" for line in lines)
        + "\n\nThe whole configuration is in `config.yaml`. This trains it again, and again with another seed:\n\n"
        "```\npython -m singer_ray.train --preset config.yaml\npython -m singer_ray.train --preset config.yaml --seed "
        f"{int(config['seed']) + 1}\n```"
    )


def _student(config: Mapping[str, Any]) -> str:
    """Its architecture and what its weights started from; results of older versions do not say the latter."""
    student = config["student"]
    registers = int(student.get("registers", 0))
    start = "fresh weights"
    if student.get("checkpoint"):
        start = f"the weights in {code(student['checkpoint'])}"
    elif student.get("pretrained"):
        start = f"the published weights of {code(student['name'])}"
    elif student.get("init") == "copy":
        start = "blocks and leading channels of the teacher"
    return code(student["name"]) + f" with {registers} register tokens" * bool(registers) + f", from {start}"


def _scores(result: Mapping[str, Any]) -> str:
    config, metrics, search = result["config"], result["metrics"], result.get("search") or {}
    rows = [
        f"| {markdown(name)} | {_cell(metrics.get(f'val/{name}'))} | {_cell(metrics.get(f'test/{name}'))} |"
        for name in _score_names(metrics)
    ]
    seeds = search.get("seeds") or 1
    spread = f"One seed ({int(config['seed'])}): the spread over seeds is not known."
    if seeds > 1 and search.get("spread") is not None:
        what, mean, deviation = markdown(_objective(search)), search["mean"], search["spread"]
        spread = (
            f"Over {int(seeds)} seeds, {what} is {mean:.4f} ± {deviation:.4f} (mean, "
            "standard deviation); the table is of the seed that is published."
        )
    norms = [f"| {markdown(name)} | {value:.2f} |" for name, value in metrics.items() if "/max_median_norm/" in name]
    text = f"""Probes on frozen last-block features, pooled by {code(config["evaluation"]["pooling"])}, before the final
norm; `after_norm/` is what `forward_features` gives. {_selection(search)} {spread}

| metric | validation | test |
| --- | --- | --- |
{chr(10).join(rows) or "| (the data has no annotations) | | |"}"""
    if remarks := result.get("remarks"):
        text += "\n\nWhat must be known of the data:\n\n" + "\n".join(f"- {_plain(line)}" for line in remarks)
    if norms:
        text += f"""

Artifacts: largest over median patch norm, mean over images:

| network and layer | ratio |
| --- | --- |
{chr(10).join(norms)}"""
    return text


def _selection(search: Mapping[str, Any]) -> str:
    by = search.get("selected_by")
    if by and by.startswith("test/"):
        return f"Selected by {code(by)}: the figures of the test split are therefore too good."
    return f"Selected on validation{f' (by {code(by)})' if by else ''}; the test split was read once."


def _pictures(folder: Path) -> list[str]:
    paths = sorted((folder / PICTURES).glob("*.png"))
    if not paths:
        return []
    shown = []
    for path in paths:
        caption = _CAPTIONS.get(path.name) or markdown(path.stem.replace("_", " "))
        shown.append(f"![{caption}]({PICTURES}/{quote(path.name)})\n\n*{caption}*")
    return ["## Pictures", *shown]


def _own_licence(result: Mapping[str, Any]) -> str | None:
    given: str | None = result.get("license") or result["config"]["export"].get("license")
    return given


def _licence(result: Mapping[str, Any]) -> str:
    config, own = result["config"], _own_licence(result)
    teacher = config["teacher"]["name"]
    theirs = _published(teacher).get("license")
    return "\n".join(
        [
            f"- This student: {markdown(own) if own else 'not stated by who published it (--export.license)'}.",
            f"- Teacher {code(teacher)}: "
            + (f"{markdown(theirs)}, says timm's registry." if theirs else "see where it was published."),
            f"- Data: {_data(config['data'])}; see its own terms.",
        ]
    )


@functools.cache
def _published(name: str) -> Mapping[str, Any]:
    """What timm's registry says about published weights."""
    pretrained = timm.models.get_pretrained_cfg(name, allow_unregistered=True) if ":" not in name else None
    return {} if pretrained is None else {k: v for k, v in pretrained.to_dict().items() if isinstance(v, str)}


def _parameters(folder: Path) -> int:
    with safe_open(folder / WEIGHTS, framework="np") as weights:
        count: int = sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
        return count


def _remedy(method: Mapping[str, Any]) -> str:
    refiner, wrapper = method["refiner"], method.get("wrapper", "none")  # older results have no wrapper
    if wrapper != "none":
        through = _with_settings(wrapper, method)
        return through if refiner == "none" else f"{through}; then {_remedy({**method, 'wrapper': 'none'})}"
    if refiner == "none":
        return "none (plain feature distillation)"
    if refiner != "singer":
        return _with_settings(refiner, method)
    return (
        f"SiNGER adapter (arXiv 2509.20986, {markdown(method['variant'])}) of rank {int(method['rank'])}, strength "
        f"{method['strength']:.3g}, lambda_outlier {method['loss']['outlier']:.3g}, lambda_info "
        f"{method['loss']['info']:.3g}, gamma {method['outlier_quantile']:.3g}"
    )


def _with_settings(name: str, method: Mapping[str, Any]) -> str:
    own = method.get(name) or {}
    return ", ".join(markdown(part) for part in (name, *(f"{n} {_value(v)}" for n, v in own.items() if v is not None)))


def _data(data: Mapping[str, Any]) -> str:
    return SOURCES.get(data["source"], SOURCES[FROM_PYTHON]).describe(data, code)


def _objective(search: Mapping[str, Any]) -> str:
    return str((search.get("objectives") or ["the objective"])[0]).partition(":")[0]


def _score_names(metrics: Mapping[str, float]) -> list[str]:
    names = [name.partition("/")[2] for name in metrics if name.startswith(("val/", "test/"))]
    return sorted(set(names), key=lambda name: ("after_norm" in name, name))


def _plain(line: object) -> str:
    """Text escaped so that Markdown shows it literally: it may contain file names."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#!&~" else c for c in printable(line, 1000))


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _numbers(values: Any) -> str:
    return " ".join(f"{value:g}" for value in values)


def _listed(values: Any) -> str:
    return ", ".join(map(str, values))
