"""Folders of searches and packages as strangers send them, with no training behind them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from singer_ray.layout import MANIFEST
from singer_ray.publishing.packages.manifest import FORMAT


def search_in(out: Path, trial: str = "002") -> Path:
    """A search of one finished trial with a student, which is no network."""
    student = out / "best" / f"1-{trial.rpartition('/')[2]}"
    student.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "result.json"):
        (student / name).write_text("{}")
    (out / "config.yaml").write_text("seed: 0\n")
    (out / "space.yaml").write_text("method.rank: {type: int, low: 1, high: 2}\n")
    (out / "search.json").write_text(json.dumps({"name": "search", "id": "a", "objectives": ["val/miou:max"]}))
    row = {"rank": 1, "id": trial, "state": "COMPLETE", "val/miou": 0.3, "epochs": 1, "seconds": 1.0, "fault": None}
    pd.DataFrame([row]).to_parquet(out / "leaderboard.parquet")
    return out


def manifest_of(files: Mapping[str, bytes], **stated: Any) -> bytes:
    """A manifest that fits its own digest, whatever it names."""
    entries = {n: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in files.items()}
    entries |= {name: entry for name, entry in stated.items()}
    own = {name: [entry["bytes"], entry["sha256"]] for name, entry in sorted(entries.items())}
    digest = hashlib.sha256(json.dumps(own, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return json.dumps({"format": FORMAT, "package": digest, "student": "", "files": entries}).encode()


def package_in(folder: Path, files: Mapping[str, bytes]) -> Path:
    """A package of these files, written as they are named where that is possible."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        if path.resolve().is_relative_to(folder.resolve()) and len(name) < 256:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    (folder / MANIFEST).write_bytes(manifest_of(files))
    return folder
