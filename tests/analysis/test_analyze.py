"""The command from end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib import pyplot

from singer_ray import analyze
from singer_ray.cli import run_command
from singer_ray.publishing.result import build_result

PICTURES = ("layers.png", "norm_histograms.png", "norm_maps.png", "pca.png", "gradient_share.png")


def run(*arguments: str) -> int:
    return run_command(analyze.COMMAND, analyze.main, arguments)


@pytest.mark.slow
def test_the_demo_teacher(tmp_path: Path, small_arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    settings = [*small_arguments, "--method.prefit.steps", "40", "--images", "48", "--steps", "3"]
    assert run(*settings, "--out", str(out)) == 0
    result = json.loads((out / "result.json").read_text())
    assert {"metrics", "config", "versions", "git_commit", "seconds", "verdict", "layers", "training"} <= set(result)
    assert {type(value) for value in result["metrics"].values()} <= {int, float}
    metrics = result["metrics"]
    assert metrics["teacher/outlier_energy_share/3"] > 0.5
    assert metrics["teacher/artifact_directions_95/2"] == 3
    assert metrics["bias_start/none/gradient_share"] > metrics["bias_start/singer/gradient_share"]
    assert metrics["refined/max_median_norm/3"] < metrics["teacher/max_median_norm/3"]
    assert "student/none/max_median_norm/2" in metrics
    assert [entry["step"] for entry in result["training"]] == [0, 1, 2, 3]
    verdict = result["verdict"]
    assert (verdict["artifacts"], verdict["refiner"], verdict["directions"]) == (True, "singer", 3)
    assert verdict["blocks"] == [2, 3, 4, 5]
    assert metrics["teacher/spectral_directions/3"] == 3
    assert metrics["teacher/place_recurrence/3"] < 0.5
    assert " ".join(result["verdict"]["text"].split()) in " ".join(capsys.readouterr().out.split())
    assert {p.name for p in out.iterdir()} == {"result.json", "config.yaml", "log.txt", *PICTURES}
    for name in PICTURES:
        pixels = pyplot.imread(out / name)
        assert 400 <= pixels.shape[1] <= 1100
        assert pixels[..., :3].std() > 0.05, f"{name} is blank"
    assert run(*settings, "--out", str(out)) == 2  # not again into the same folder


@pytest.mark.slow
def test_images_without_labels_and_a_clean_teacher(
    tmp_path: Path, small_arguments: list[str], image_tree: Callable[..., Path]
) -> None:
    out, images = tmp_path / "out", image_tree("photos", {"": 20})
    source = ["--data.source", "imagefolder", "--data.train", str(images), "--teacher.name", "demo-clean"]
    assert run(*small_arguments, *source, "--steps", "0", "--out", str(out)) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["verdict"]["artifacts"] is False
    assert result["verdict"]["refiner"] == "none"
    assert "refinement will not help" in result["verdict"]["text"]
    assert not [name for name in result["metrics"] if name.startswith("student/") or "artifact_directions" in name]
    assert all((out / name).stat().st_size > 5000 for name in PICTURES)


@pytest.mark.slow
def test_what_fails_on_the_way_leaves_nothing(tmp_path: Path, small_arguments: list[str]) -> None:
    out = tmp_path / "out"
    diverging = ["--train.lr", "1e30", "--train.clip_grad", "0", "--train.warmup", "0"]
    assert run(*small_arguments, *diverging, "--images", "8", "--steps", "4", "--out", str(out)) == 2
    assert not out.exists()


def test_a_result_without_a_loop_has_no_epochs() -> None:
    assert {"epochs", "images_per_second"}.isdisjoint(build_result({}, {"a/b": 1.0}, 2.0))
    assert build_result({}, {"a/b": 1.0, "epoch": 3, "images_per_second": 5.0}, 2.0)["epochs"] == 3
