"""What the longer benchmarks share: parts in processes of their own, kept on disk, and where raw figures come from."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from singer_ray.publishing.result import versions

Metrics = dict[str, dict[str, float]]


def in_processes(module: str, parts: Mapping[str, Sequence[object]], out: Path, at_once: int = 2) -> dict[str, Metrics]:
    """Runs `python -m MODULE ARGUMENTS --out OUT` for each part that OUT/PART.json lacks, `at_once` at a time.

    Each such process writes OUT/PART.json; an interrupted benchmark goes on with what is missing.
    """

    def child(part: str) -> Metrics:
        path = out / f"{part}.json"
        if not path.exists():
            arguments = [*map(str, parts[part]), "--out", str(out)]
            subprocess.run([sys.executable, "-m", module, *arguments], check=True)
        return dict(json.loads(path.read_text()))

    out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(at_once) as pool:
        return dict(zip(parts, pool.map(child, parts)))


def write_raw(path: Path, module: str, metrics: Mapping[Any, Any]) -> None:
    """The raw figures, with command, hardware and versions."""
    raw = {
        "command": f"python -m {module}",
        "hardware": hardware(),
        "versions": versions(),
        "metrics": metrics,
    }
    path.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")


def hardware() -> str:
    """Processor, its number of cores, and the GPU that students train on where there is one."""
    import torch

    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores{gpu}"
