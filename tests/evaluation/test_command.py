"""`python -m singer_ray.evaluate`: a run's student beside a baseline, from the command line to result.json."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from singer_ray import evaluate
from singer_ray.cli import run_command
from singer_ray.config import load_preset
from singer_ray.distillation import Distilled, run_distillation
from tests.conftest import SMALL

BASELINE = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Distilled:
    torch.set_num_threads(1)
    return run_distillation(load_preset("demo").override(SMALL), tmp_path_factory.mktemp("evaluated") / "run")


def command(*arguments: str) -> int:
    return run_command(evaluate.COMMAND, evaluate.main, arguments)


def result(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "result.json").read_text())
    return found


@pytest.mark.slow
def test_a_student_scores_as_its_own_training_said(
    run: Distilled, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    preset, out = str(run.out / "config.yaml"), tmp_path / "out"
    arguments = [str(run.out), "demo", "--preset", preset, "--evaluation.l2_grid", "1e-4", "--out", str(out)]
    assert command(*arguments) == 0
    found = result(out)
    metrics = found["networks"][str(run.out)]["metrics"]
    scores = {name: value for name, value in run.metrics.items() if name.startswith(("val/", "test/"))}
    assert len(scores) == 16  # 4 scores, 2 splits, 2 sides of the norm
    assert {name: metrics[name] for name in scores} == scores
    last = max(name for name in run.metrics if name.startswith("student/max_median_norm/"))
    assert metrics["val/max_median_norm"] == pytest.approx(run.metrics[last], rel=1e-4)
    assert found["networks"]["demo"]["metrics"]["val/gram_cosine"] == pytest.approx(1.0, abs=1e-5)
    assert found["teacher"] == "demo"
    assert {"config", "versions", "git_commit", "seconds"} < set(found)

    shown = capfd.readouterr().out
    assert "val/after_norm/miou" in shown
    assert not {c for c in shown if c == "\x1b" or "─" <= c <= "╿"}, "plain where nobody watches"
    assert re.search(r"^parameters +[\d,]+ +[\d,]+ *$", shown, re.MULTILINE)
    assert "↑ more is better, ↓ less is better; * the best" in shown
    assert command(*arguments) == 2  # the folder now holds a result
    assert "is not empty" in capfd.readouterr().err


@pytest.mark.slow
def test_the_ways_to_name_a_student_lead_to_one_student(run: Distilled, tmp_path: Path) -> None:
    names = [str(run.out), str(run.student), f"local-dir:{run.student}"]
    small = ["--data.scenes.train_images", "32", "--data.scenes.val_images", "16", "--data.scenes.test_images", "16"]
    assert command(*names, *small, "--out", str(tmp_path / "out"), "--evaluation.l2_grid", "0.01") == 0
    networks = result(tmp_path / "out")["networks"]
    assert list(networks) == names
    assert networks[names[0]] == networks[names[1]] == networks[names[2]]
    assert networks[names[0]]["l2"]["linear_top1"] == 0.01


@pytest.mark.slow
def test_a_baseline_keeps_its_own_input_unless_another_is_given(tmp_path: Path) -> None:
    few = ["--data.scenes.train_images", "8", "--data.scenes.val_images", "4", "--data.scenes.test_images", "4"]
    common = [BASELINE, *few, "--teacher.pretrained", "False", "--evaluation.l2_grid", "0.01"]
    assert command(*common, "--out", str(tmp_path / "own")) == 0
    own = result(tmp_path / "own")["networks"][BASELINE]
    assert (own["image_size"], own["crop_pct"], own["grid"]) == (224, 0.9, [14, 14])
    assert any(note.startswith("no gram_cosine: its grid of patches is 14 x 14") for note in own["notes"])
    assert command(*common, "--data.image-size=64", "--data.crop_pct", "1", "--out", str(tmp_path / "given")) == 0
    given = result(tmp_path / "given")["networks"][BASELINE]
    assert (given["image_size"], given["crop_pct"], given["grid"]) == (64, 1.0, [4, 4])


def test_the_table_marks_the_best_and_fits_the_screen() -> None:
    networks = {
        f"runs/[red]{name}": {"parameters": 1_234_567, "metrics": metrics}
        for name, metrics in {
            "one": {"val/miou": 0.5, "val/depth_rmse": 0.1, "val/knn_top1": 0.9},
            "two": {"val/miou": 0.6, "val/depth_rmse": 0.2, "val/knn_top1": 0.9, "val/gram_cosine": 1.0},
            "three": {"val/miou": 0.4, "val/depth_rmse": 0.3},
        }.items()
    }

    def drawn(width: int) -> str:
        screen = io.StringIO()
        console = Console(file=screen, width=width, color_system=None)
        for table in evaluate.tables(networks, width, plain=False):
            console.print(table)
        return screen.getvalue()

    wide = drawn(100)
    assert re.search(r"val/miou ↑ +│ +0\.5000 +│ +\*0\.6000 │ +0\.4000", wide)
    assert re.search(r"val/depth_rmse ↓ +│ +\*0\.1000 │ +0\.2000 +│ +0\.3000", wide)
    assert re.search(r"val/knn_top1 ↑ +│ +0\.9000 +│ +0\.9000 +│ +│?", wide), "nothing to choose"
    assert re.search(r"parameters +│ +1,234,567 ", wide)
    narrow = drawn(50)
    assert narrow.count("val/miou") == 3, "a table for each that has no room beside the others"
    for text in (wide, narrow):
        assert max(map(len, text.splitlines())) <= (100 if text is wide else 50)
        assert all(name in text for name in networks)
