"""What the folder of one training run says about it; each file may be missing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from singer_ray.config import Config, load_preset
from singer_ray.errors import UserError, printable
from singer_ray.layout import CONFIG, HISTORY, JOURNAL, PICTURES, RECORD, RESULT, STUDENT
from singer_ray.storage import read_json_mapping, without_credentials
from singer_ray.tracking.history import SECONDS, Row, read_history

LARGEST = 32 * 2**20
"""Bytes; a larger result.json is not one of ours."""


@dataclass(frozen=True)
class RunResult:
    """A run, as read from its folder."""

    folder: Path
    rows: Mapping[int, Row]
    """What each epoch reported; empty for a run that kept no history."""
    metrics: Mapping[str, float]
    """Of the result, else of the last epoch."""
    finished: bool
    """Whether there is a result."""
    seconds: float | None
    """Of training, all sessions."""
    images_per_second: float | None
    remarks: Sequence[str]
    """What the run said about its data and its result."""
    pictures: Sequence[Path]
    config: Config | None
    """None where it is missing, or of another version."""
    written: str | None
    """config.yaml, passwords of addresses masked."""

    @property
    def name(self) -> str:
        return self.folder.absolute().name

    @property
    def epochs(self) -> int:
        """Epochs that have ended."""
        return max(self.rows, default=0)

    @property
    def student(self) -> Path | None:
        """The folder that timm loads, once it is there."""
        return self.folder / STUDENT if (self.folder / STUDENT / CONFIG).is_file() else None


def is_run(folder: Path) -> bool:
    """Whether a folder holds a training run, and no search."""
    search = any((folder / name).exists() for name in (RECORD, JOURNAL))
    return not search and any((folder / name).is_file() for name in (HISTORY, RESULT, CONFIG))


def read_run(folder: Path) -> RunResult:
    """The run in FOLDER. Raises UserError when there is none."""
    if not is_run(folder):
        raise UserError(f"{printable(folder)} is not a training run. Give the --out of singer_ray.train.")
    rows, result = read_history(folder), _result(folder / RESULT)
    last: Row = rows[max(rows)] if rows else {}
    metrics = _numbers(result.get("metrics")) or {name: value for name, value in last.items() if "/" in name}
    if not rows and not metrics:
        raise UserError(
            f"{printable(folder)} has neither {HISTORY} nor a {RESULT} with metrics: no epoch was finished there. Give "
            "the --out of singer_ray.train."
        )
    told = result.get("remarks")
    return RunResult(
        folder=folder,
        rows=rows,
        metrics=metrics,
        finished=bool(result),
        seconds=last.get(SECONDS) or _number(result.get("seconds")),
        images_per_second=_number(result.get("images_per_second")) or last.get("images_per_second"),
        remarks=[str(each) for each in told] if isinstance(told, list) else [],
        pictures=sorted((folder / PICTURES).glob("*.png")),
        config=_config(folder / CONFIG),
        written=_text(folder / CONFIG),
    )


def _result(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            return {}
        return read_json_mapping(path.read_bytes(), str(path))
    except (OSError, UserError):
        return {}


def _numbers(values: Any) -> dict[str, float]:
    if not isinstance(values, Mapping):
        return {}
    return {str(name): number for name, value in values.items() if (number := _number(value)) is not None}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _config(path: Path) -> Config | None:
    try:
        return load_preset(str(path)) if path.is_file() else None
    except UserError:
        return None


def _text(path: Path) -> str | None:
    try:
        return without_credentials(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
