"""What a refiner leaves unchanged, on refinements whose effect is known."""

from __future__ import annotations

import pytest
import torch

from singer_ray.config import Config
from singer_ray.evaluation.preservation import changes_of
from singer_ray.training.context import TrainContext
from singer_ray.training.loop import final_metrics
from singer_ray.training.trainer import StudentTrainer
from singer_ray.vision.tapped import Features, TappedViT


@pytest.fixture
def passed(small: Config) -> tuple[TappedViT, Features]:
    context = TrainContext(small)
    teacher = context.tapped_teacher([3, 4, 5])
    return teacher, context.teacher_pass(teacher, context.pixels(next(context.batches(batch_size=8, seed=0))))


def test_nothing_changes_without_refinement(passed: tuple[TappedViT, Features]) -> None:
    teacher, features = passed
    changes = changes_of(teacher, features, 3, lambda _, tokens: tokens)
    assert changes == dict.fromkeys(("normal_change", "branch_change", "output_change", "gram_change"), 0.0)


def test_rescaling_all_tokens_changes_lengths_but_not_what_the_next_block_adds(
    passed: tuple[TappedViT, Features],
) -> None:
    """LayerNorm reads directions only; the MLP sees a little, because attention's output is not rescaled with it."""
    teacher, features = passed
    changes = changes_of(teacher, features, 3, lambda _, tokens: 2 * tokens)
    assert changes["normal_change"] == pytest.approx(1.0, rel=1e-5)
    assert 0 < changes["branch_change"] < 0.15
    assert changes["output_change"] > 0.5


def test_behind_the_last_block_only_what_exists_is_given(passed: tuple[TappedViT, Features]) -> None:
    teacher, features = passed
    changes = changes_of(teacher, features, 5, lambda _, tokens: tokens + torch.randn_like(tokens))
    assert set(changes) == {"normal_change", "gram_change"}
    assert min(changes.values()) > 0


@pytest.mark.long
def test_a_run_reports_what_its_refiner_changed_and_a_gate_spares_normal_tokens(small: Config) -> None:
    config = small.override({"method.prefit.steps": 20, "method.gate": 2.0, "method.radial": False})
    gated, free = (
        final_metrics(StudentTrainer.begin(TrainContext(small), c))
        for c in (config, config.override({"method.gate": 0.0}))
    )
    assert gated["refined/normal_change/3"] == 0.0
    assert free["refined/normal_change/3"] > 0.05
    assert gated["refined/branch_change/3"] > 0
    assert gated["refined/max_median_norm/3"] < gated["teacher/max_median_norm/3"]


@pytest.mark.slow
def test_a_teacher_without_artifacts_is_told(small: Config) -> None:
    def lines(config: Config) -> str:
        said: list[str] = []
        StudentTrainer(TrainContext(config), config).observe(said.append)
        return " ".join(said)

    clean = small.override({"teacher.name": "demo-clean"})
    assert "shows no artifacts here" in lines(clean)
    assert "--method.refiner none should do as well" in lines(clean)
    assert "shows no artifacts" not in lines(small)
    assert "shows no artifacts" not in lines(clean.override({"method.refiner": "none"}))


def test_a_rank_above_the_null_space_is_told(fitted: Config) -> None:
    said: list[str] = []
    StudentTrainer(TrainContext(fitted), fitted).observe(said.append)
    assert "layer 3: block 4 leaves 0 of 64 directions unread; the 16 others of rank 16" in said[0]
