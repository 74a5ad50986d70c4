"""distill and sweep with a teacher and data of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from singer_ray import UserError, distill, ray_cluster, sweep
from singer_ray.search.experiment import resume_search
from tests.conftest import SMALL


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
    assert not (tmp_path / "run").exists()
