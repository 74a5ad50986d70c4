"""What is written beside every result, so that it can be judged and reproduced."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from singer_ray.storage import read_json_mapping, without_credentials, write_whole

PACKAGES = (
    "singer-ray",
    "torch",
    "torchvision",
    "timm",
    "ray",
    "optuna",
    "numpy",
    "torchmetrics",
    "safetensors",
    "onnx",
    "onnxscript",
    "onnxruntime",
)


def build_result(
    config: Mapping[str, Any], metrics: Mapping[str, float], seconds: float, remarks: Sequence[str] = ()
) -> dict[str, Any]:
    """The content of result.json: metrics, remarks, config, versions, git_commit, seconds, images_per_second.

    `remarks` are lines that readers of the metrics should know.

    `metrics` are the last ones of the training loop; names without a slash are its bookkeeping, which gets keys of its
    own. Where there was no loop, epochs and images_per_second are absent.
    """
    scores = {name: value for name, value in sorted(metrics.items()) if "/" in name}
    result: dict[str, Any] = {
        "metrics": scores,
        "remarks": list(remarks),
        "config": config,
        "versions": versions(),
        "git_commit": git_commit(),
        "seconds": round(seconds, 3),
    }
    if "epoch" in metrics:
        result |= {"epochs": int(metrics["epoch"]), "images_per_second": round(metrics["images_per_second"], 1)}
    return result


@cache
def versions() -> dict[str, str]:
    """Python and the packages that decide the numbers."""
    installed = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


@cache
def git_commit() -> str | None:
    """The commit of the checkout that this code runs from, `-dirty` when it was changed; None outside a checkout."""
    package = Path(__file__).parents[1]
    try:
        inside = subprocess.run(
            ["git", "-C", str(package), "ls-files", "--error-unmatch", "__init__.py"], capture_output=True, check=False
        )
        if inside.returncode:
            return None
        commit = ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(commit, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None


def scrubbed(tree: Any) -> Any:
    """Mappings, lists and texts without the user and password of any address in them (a study's database, say)."""
    if isinstance(tree, Mapping):
        return {name: scrubbed(value) for name, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [scrubbed(value) for value in tree]
    return without_credentials(tree) if isinstance(tree, str) else tree


def parsed(content: bytes | None, where: str) -> dict[str, Any]:
    """A JSON file's mapping; empty where there is no file. Raises UserError for one that is damaged."""
    if content is None:
        return {}
    return read_json_mapping(content, where, "It is damaged: restore it, or remove it and publish again.")


def write_json(path: Path, content: Any) -> None:
    """Writes `path` whole or not at all, without the credentials of any address in it."""
    write_whole(path, json.dumps(scrubbed(content), indent=2, allow_nan=False) + "\n")
