"""distill and sweep with a teacher and data of one's own."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import singer_ray
from singer_ray import UserError, analyze_teacher, distill, evaluate_networks, sweep
from singer_ray.nodes import ray_cluster
from singer_ray.search.driver.search import resume_search
from tests.conftest import SMALL

pytestmark = pytest.mark.ray


class Stripes:
    """A data set as people write them: (PIL image, label)."""

    classes = ("upright", "level")

    def __init__(self, count: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.labels = rng.integers(0, 2, count)
        self.noise = rng.integers(0, 60, (count, 32, 32, 3))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        stripes = np.broadcast_to((np.arange(32) // 4 % 2 * 180)[None, :, None], (32, 32, 3))
        if self.labels[i]:
            stripes = stripes.transpose(1, 0, 2)
        return Image.fromarray((stripes + self.noise[i]).astype(np.uint8)), int(self.labels[i])


@pytest.fixture
def teacher() -> Any:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=48, depth=4, num_heads=4)


SETTINGS = {**{k: v for k, v in SMALL.items() if "scenes" not in k}, "teacher.layers": (2, 3)}


def test_what_python_callers_meet(tmp_path: Path) -> None:
    """Names, types and docstrings; nothing that only the commands need is imported for them."""
    program = """
import sys
for name in ("rich", "torch"):
    sys.modules[name] = None
import singer_ray
from singer_ray import analyze_teacher, distill, evaluate_networks, sweep
assert all(function.__doc__ for function in (analyze_teacher, distill, evaluate_networks, sweep))
print(*(name for name in dir(singer_ray) if not name.startswith("_")))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == sorted(singer_ray.__all__)
    assert (Path(singer_ray.__file__).parent / "py.typed").exists()
    metrics = {"val/linear_top1": 0.5, "test/linear_top1": 0.25, "train/loss": 3.0}
    shown = repr(singer_ray.Distilled(Path("runs/x"), {"metrics": metrics, "config": {"a": "long"}}))
    assert shown == "Distilled('runs/x', val/linear_top1=0.5, test/linear_top1=0.25)"


def test_networks_are_evaluated_from_python(teacher: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = {"train": Stripes(48, 0), "val": Stripes(24, 1)}
    other = copy.deepcopy(teacher.eval()).train()
    out, settings = tmp_path / "out", {"evaluation.l2_grid": (0.01,)}
    done = evaluate_networks([teacher, other], data, teacher=teacher, settings=settings, out=out)
    first, second = done.metrics.values()
    assert list(done.metrics) == ["VisionTransformer", "VisionTransformer-2"]
    assert first == pytest.approx(second)
    assert first["val/gram_cosine"] == pytest.approx(1.0, abs=1e-5)
    assert done.table.loc["val/linear_top1", "VisionTransformer"] == first["val/linear_top1"]
    assert json.loads((out / "result.json").read_text())["networks"]["VisionTransformer"]["image_size"] == 32
    assert repr(done) == f"Evaluation(VisionTransformer, VisionTransformer-2: {len(first)} metrics in .table)"
    assert (teacher.training, other.training) == (False, True)  # as they came
    named = evaluate_networks({"mine": "demo"}, data, settings=settings, log=lambda line: None)
    assert list(named.metrics) == ["mine"]
    assert "val/gram_cosine" not in named.metrics["mine"]
    with pytest.raises(UserError, match="is not empty"):
        evaluate_networks(teacher, data, out=out)
    with pytest.raises(UserError, match="networks is empty"):
        evaluate_networks([], data)
    with pytest.raises(UserError, match="network 'demo' is given twice"):
        evaluate_networks(["demo", "demo"], data)
    with pytest.raises(UserError, match="data has no validation or test images"):
        evaluate_networks(teacher, {"train": Stripes(8, 0)})


def test_a_teacher_is_analyzed_from_python(teacher: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [image for image, _ in (Stripes(16, 0)[i] for i in range(16))]
    done = analyze_teacher(teacher, images, settings=SETTINGS, steps=0, images=8)
    assert done.artifacts is False
    assert done.rank is None
    assert done.refiner == "none"
    assert "teacher/max_median_norm/3" in done.metrics
    assert repr(done) == f"Analysis(artifacts=False, rank=None, {len(done.metrics)} metrics)"
    assert list(tmp_path.iterdir()) == []
    assert done.verdict in capsys.readouterr().out
    with pytest.raises(UserError, match=r"^k is "):
        analyze_teacher(teacher, images, k=1)
    with pytest.raises(UserError, match=r"^steps is -1"):
        analyze_teacher(teacher, images, steps=-1)


def test_distill_with_a_module_and_data_sets(teacher: Any, tmp_path: Path) -> None:
    data = {"train": Stripes(64, 0), "val": Stripes(40, 1), "test": Stripes(40, 2)}
    done = distill(teacher, data, out=tmp_path / "run", settings=SETTINGS)
    assert {"val/linear_top1", "test/linear_top1", "teacher/max_median_norm/3"} <= set(done.metrics)
    assert not [name for name in done.metrics if "miou" in name or "depth" in name]  # absent, not zero
    assert timm.create_model(f"local-dir:{done.student}", pretrained=True)(torch.rand(1, 3, 32, 32)).shape == (1, 48)
    assert done.result["config"]["teacher"]["name"] == "own:VisionTransformer"


def test_training_images_need_no_labels(teacher: Any, tmp_path: Path) -> None:
    class Bare(Stripes):
        def __getitem__(self, i: int) -> Any:
            return super().__getitem__(i)[0]

    probes = {"train": Stripes(40, 3), "val": Stripes(40, 4)}
    done = distill(teacher, {"train": Bare(64, 0)}, probe_data=probes, out=tmp_path / "run", settings=SETTINGS)
    assert {"val/linear_top1", "val/knn_top1"} <= set(done.metrics)
    assert not [name for name in done.metrics if name.startswith("test/")]


@pytest.fixture
def _cluster() -> Iterator[None]:
    with ray_cluster.connected():
        yield


@pytest.mark.long
@pytest.mark.usefixtures("_cluster")
def test_sweep_with_a_module_and_a_space_of_ones_own_and_going_on(
    teacher: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = {"train": Stripes(64, 0), "val": Stripes(40, 1)}, tmp_path / "search"
    space = {"method.rank": {"type": "int", "low": 1, "high": 8}}
    sweep(space, teacher, data, out=out, settings=SETTINGS, trials=1)
    how = f"singer_ray.sweep(resume={str(out)!r}, teacher=..., data=...) in Python"
    assert f"if anything ends this search: {how}" in capsys.readouterr().out.replace("\n", "")
    with pytest.raises(UserError, match="was given its teacher and data in Python, which it needs again") as caught:
        resume_search(str(out))  # what the command does
    assert how in str(caught.value)
    with pytest.raises(
        UserError, match=r"sweep\(resume=...\) goes on with the search as it was: leave out space, over"
    ):
        sweep(space, teacher, data, resume=out, overwrite=True)
    with pytest.raises(UserError, match=r"method\.rank cannot change"):
        sweep(teacher=teacher, data=data, resume=out, settings={"method.rank": 4})
    done = sweep(teacher=teacher, data=data, resume=out, trials=2)
    assert done.metric == "val/linear_top1"
    assert sorted(done.leaderboard["id"]) == ["000", "001"]
    assert set(done.leaderboard["state"]) <= {"COMPLETE", "PRUNED"}
    assert (done.best[0] / "model.safetensors").exists()


def test_faults_are_user_errors_that_say_what_to_do(teacher: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a data set under 'train'"):
        distill(teacher, {"val": Stripes(4, 0)}, out=tmp_path / "run")
    with pytest.raises(UserError, match=r"Did you mean method\.rank"):
        distill(teacher, {"train": Stripes(4, 0)}, out=tmp_path / "run", settings={"method.rnk": 4})
    with pytest.raises(UserError, match="no transformer blocks"):
        distill(torch.nn.Linear(2, 2), {"train": Stripes(4, 0)}, out=tmp_path / "run")
    locked = Stripes(4, 0)
    locked.lock = threading.Lock()  # type: ignore[attr-defined]
    said = r"data\['val'\] \(Stripes\) cannot be sent to other processes: cannot pickle .* Open files .*in __getitem__"
    data = {"train": Stripes(4, 0), "val": locked}
    with pytest.raises(UserError, match=said):
        sweep("singer", teacher, data, out=tmp_path / "run")
    with pytest.raises(UserError, match=said):
        distill(teacher, data, out=tmp_path / "run", settings={"train.workers": 2})
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_zeros_has_nothing_to_teach(teacher: Any, tmp_path: Path) -> None:
    for weights in teacher.parameters():
        weights.data.zero_()
    data = {"train": Stripes(16, 0), "val": Stripes(8, 1)}
    with pytest.raises(
        UserError, match=r"^teacher own:VisionTransformer: the median norm .* is 0 in layer 2, so there"
    ):
        distill(teacher, data, out=tmp_path / "out", settings=SETTINGS)
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_a_run_from_python_loads_neither_a_command_line_parser_nor_rich(tmp_path: Path) -> None:
    settings = {**SMALL, "train.epochs": 1, "train.steps_per_epoch": 2, "method.refiner": "none"}
    program = f"""
import sys
import singer_ray
done = singer_ray.distill(out={str(tmp_path / "run")!r}, settings={settings!r})
assert (done.out / "report.html").is_file()
print(sorted({{"rich", "tyro", "singer_ray.cli", "singer_ray.console.terminal"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
