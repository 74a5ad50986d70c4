"""The digits example of the README, with fewer steps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.long


def command(name: str, folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"singer_ray.{name}", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_digits_end_to_end(tmp_path: Path) -> None:
    command("digits", tmp_path, "--out", "runs/digits")
    images = sorted((tmp_path / "runs" / "digits").rglob("*.png"))
    assert len(images) == 1797
    assert {p.parts[-3] for p in images} == {"train", "val", "test"}
    assert Image.open(images[0]).size == (8, 8)
    command("teacher", tmp_path, "--preset", "digits", "--steps", "160", "--out", "runs/digits-teacher")
    teacher = json.loads((tmp_path / "runs/digits-teacher/result.json").read_text())["metrics"]
    assert teacher["clean/val/top1"] > 0.5
    assert max(v for k, v in teacher.items() if "max_median" in k) < 6  # it has no artifacts, and the README says so
    command(
        "train",
        tmp_path,
        "--preset",
        "digits",
        "--train.epochs",
        "2",
        "--train.steps_per_epoch",
        "40",
        "--method.prefit.steps",
        "40",
        "--out",
        "student",
    )
    metrics = json.loads((tmp_path / "student" / "result.json").read_text())["metrics"]
    assert metrics["test/linear_top1"] > 0.5
    assert not [name for name in metrics if "miou" in name or "depth" in name]
