"""One seed of the acceptance benchmark, through the commands that users run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.acceptance import check, students, summarize

pytestmark = pytest.mark.long


@pytest.fixture
def metrics(tmp_path: Path) -> dict[str, dict[str, float]]:
    return students(0, tmp_path)


def test_singer_gives_a_better_student_than_plain_distillation(metrics: dict[str, dict[str, float]]) -> None:
    assert check(summarize(metrics)) == []
    none, singer = metrics["none"], metrics["singer"]
    assert singer["val/knn_top1"] > none["val/knn_top1"] + 0.1
    assert singer["student/max_median_norm/2"] < 4
    for layer in (3, 5):
        assert none[f"refined/max_median_norm/{layer}"] == none[f"teacher/max_median_norm/{layer}"]
