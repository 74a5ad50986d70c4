"""Names and directions of metrics come from one table."""

from __future__ import annotations

import subprocess
import sys

import pytest

from singer_ray import metrics
from singer_ray.config import Config
from singer_ray.metrics import MAX, MIN, OTHERS, PROBED, direction
from singer_ray.training.context import TrainContext
from singer_ray.training.loop import epochs
from singer_ray.training.trainer import StudentTrainer

LESS_IS_BETTER = ("rmse", "depth_rel", "max_median_norm", "artifact_share", "loss", "parameters", "_change")


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("val/miou", MAX),
        ("test/after_norm/linear_top1", MAX),
        ("val/depth_rmse", MIN),
        ("val/depth_delta1", MAX),
        ("test/official/depth_rmse_per_image/best", MIN),
        ("test/official/depth_rel/last", MIN),
        ("test/official/top1/last", MAX),
        ("student/parameters", MIN),
        ("student/artifact_share", MIN),
        ("student/max_median_norm/2", MIN),
        ("refined/gram_cosine/5", MAX),
        ("refined/branch_change/5", MIN),
        ("train/loss", MIN),
        ("images_per_second", MAX),
        ("nobody/knows/this", MAX),
        ("no_loss_of_ours", MAX),
    ],
)
def test_the_direction_of_a_metric_follows_from_the_table_not_from_letters_in_its_name(name: str, better: str) -> None:
    assert direction(name) == better


def test_no_two_entries_have_one_name() -> None:
    names = [metric.name for metric in (*PROBED, *OTHERS)]
    assert len(set(names)) == len(names)


@pytest.mark.slow
def test_every_metric_of_a_run_has_an_entry(small: Config) -> None:
    *_, last = epochs(StudentTrainer.begin(TrainContext(small), small))
    known = {metric.name for metric in (*PROBED, *OTHERS)}
    of_the_loop = {"epoch", "data_wait_share"} | {name for name in last if name.startswith("train/")}
    scored = set(last) - of_the_loop
    assert len(scored) > 20
    assert not {name for name in scored if not known & set(name.split("/"))}
    for name in scored:
        assert direction(name) == (MIN if any(part in name for part in LESS_IS_BETTER) else MAX)


def test_scores_are_ordered_by_what_they_tell() -> None:
    assert metrics.best_first() == ["miou", "linear_top1", "knn_top1", "depth_rmse"]
    assert metrics.headline() == ["miou", "linear_top1", "depth_rmse"]
    assert metrics.probed("label") == ["linear_top1", "knn_top1"]


def test_the_table_loads_no_torch() -> None:
    program = "import sys, singer_ray.metrics; assert not {'torch', 'pydantic', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
