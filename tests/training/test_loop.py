"""The training core: repeatable, resumable, and independent of who shares the teacher."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from singer_ray.config import Config
from singer_ray.training import checkpoint
from singer_ray.training.context import TrainContext
from singer_ray.training.loop import DivergedError, Metrics, epochs
from singer_ray.training.schedule import warmup_cosine
from singer_ray.training.trainer import StudentTrainer
from singer_ray.vision.students import student_of

TIMES = ("images_per_second", "data_wait_share")


def run(config: Config) -> tuple[list[Metrics], dict[str, Any]]:
    trainer = StudentTrainer.begin(TrainContext(config), config)
    return [untimed(m) for m in epochs(trainer)], trainer.state()


def untimed(metrics: Metrics) -> Metrics:
    return {name: value for name, value in metrics.items() if name not in TIMES}


def weights(state: dict[str, Any]) -> torch.Tensor:
    return torch.cat([value.flatten() for value in state["distiller"].values()])


@pytest.mark.slow
def test_the_same_seed_gives_the_same_metrics_and_weights(small: Config) -> None:
    first, second = run(small), run(small)
    assert first[0] == second[0]
    assert torch.equal(weights(first[1]), weights(second[1]))


@pytest.mark.slow
def test_another_seed_gives_another_student(small: Config) -> None:
    assert not torch.equal(weights(run(small)[1]), weights(run(small.override({"seed": 1}))[1]))


@pytest.mark.slow
@pytest.mark.parametrize("drop_path", [0.0, 0.2])
def test_a_resumed_run_ends_with_the_same_bits(small: Config, drop_path: float) -> None:
    config = small.override({"train.drop_path": drop_path, "data.augment": "crop_flip"})
    whole, end = run(config)
    trainer = StudentTrainer.begin(TrainContext(config), config)
    early = epochs(trainer)
    next(early)
    saved = checkpoint.to_bytes(trainer.state())
    torch.manual_seed(123)  # whatever happens to global state in between must not matter
    resumed = StudentTrainer.begin(TrainContext(config), config, checkpoint.from_bytes(saved))
    assert [untimed(m) for m in epochs(resumed)] == whole[1:]
    assert torch.equal(weights(resumed.state()), weights(end))


@pytest.mark.slow
def test_two_members_may_share_one_teacher_pass(small: Config) -> None:
    configs = [small.override({"train.drop_path": 0.1}), small.override({"method.rank": 4, "train.lr": 1e-3})]
    alone = [run(config)[1] for config in configs]
    context = TrainContext(configs[0])
    trainers = [StudentTrainer.begin(context, config) for config in configs]
    batches = context.batches(batch_size=16, seed=0)
    for _ in range(trainers[0].steps):
        pixels = context.pixels(next(batches))
        features = context.teacher_pass(trainers[0].teacher, pixels)
        for trainer in trainers:
            trainer.step(pixels, features)
    for trainer, expected in zip(trainers, alone, strict=True):
        assert torch.equal(weights(trainer.state()), weights(expected))


@pytest.mark.long
def test_a_member_trains_alike_on_its_own_bench_and_on_that_of_another_configuration(small: Config) -> None:
    """What a search may vary, and the seed of a repeat, must not depend on the host's configuration."""
    base = small.override(
        {
            "data.scenes.train_images": 32,
            "train.steps_per_epoch": 0,
            "train.epochs": 1,
            "train.batch_size": 8,
            "data.augment": "crop_flip",
        }
    )
    own = base.override({"train.batch_size": 16, "train.precision": "bfloat16", "seed": 1})
    metrics, state = run(own)
    trainer = StudentTrainer.begin(TrainContext(base), own)
    assert [untimed(m) for m in epochs(trainer)] == metrics
    assert trainer.step_count == 2
    assert torch.equal(weights(trainer.state()), weights(state))


@pytest.mark.slow
def test_epochs_report_losses_scores_and_pace(fitted: Config) -> None:
    trainer = StudentTrainer.begin(TrainContext(fitted), fitted)
    heard: list[tuple[int, int]] = []
    first, last = epochs(trainer, heartbeat=lambda epoch, step, *_: heard.append((epoch, step)))
    assert heard == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]
    assert (first["epoch"], last["epoch"]) == (1, 2)
    assert {"train/loss", "train/kd", "train/outlier", "train/info"} <= set(first)
    assert first["train/loss"] == pytest.approx(
        first["train/kd"] + 0.1 * first["train/outlier"] + 50 * first["train/info"], rel=1e-5
    )
    assert "val/miou" in first
    assert not any(name.startswith("test/") for name in first)  # the test split is read once, at the end
    assert {"test/miou", "val/after_norm/miou", "teacher/max_median_norm/5", "student/max_median_norm/2"} <= set(last)
    assert first["images_per_second"] > 0


@pytest.mark.slow
def test_unreached_parameters_stay_as_they_were(small: Config) -> None:
    trainer = StudentTrainer.begin(TrainContext(small), small)
    norm: Any = trainer.student_model.norm
    assert not norm.weight.requires_grad
    assert torch.equal(norm.weight, torch.ones(48))
    assert all(p.requires_grad for p in trainer.distiller.projections.parameters())


def test_weight_decay_spares_biases_norms_and_adapters(fitted: Config) -> None:
    trainer = StudentTrainer.begin(TrainContext(fitted), fitted)
    assert trainer.optimizer is not None
    decays = {id(p): g["weight_decay"] for g in trainer.optimizer.param_groups for p in g["params"]}
    named = {n: decays[id(p)] for n, p in trainer.distiller.named_parameters() if id(p) in decays}
    assert {w for n, w in named.items() if n.startswith("refiner.")} == {0.0}
    assert {w for n, w in named.items() if n.endswith(("bias", "pos_embed", "cls_token", "norm1.weight"))} == {0.0}
    assert named["projections.3.weight"] == named["student.model.blocks.0.attn.qkv.weight"] == 0.05


@pytest.mark.slow
def test_a_loss_that_diverges_is_an_error_in_words(small: Config) -> None:
    config = small.override({"train.lr": 1e30, "train.clip_grad": 0.0, "train.warmup": 0.0})
    with pytest.raises(DivergedError, match=r"no longer finite in epoch 1 \(train.lr 1e\+30\)"):
        run(config)


@pytest.mark.slow
def test_bfloat16_follows_float32(fitted: Config) -> None:
    brief = fitted.override({"train.epochs": 1, "train.batch_size": 8})
    plain, half = run(brief)[0], run(brief.override({"train.precision": "bfloat16"}))[0]
    assert half[-1]["train/loss"] == pytest.approx(plain[-1]["train/loss"], rel=0.05)
    assert math.isfinite(half[-1]["train/info"])


@pytest.mark.slow
def test_the_student_comes_out_of_the_state_alone(small: Config) -> None:
    trainer = StudentTrainer.begin(TrainContext(small), small)
    for _ in epochs(trainer):
        pass
    model, normalization = student_of(small, checkpoint.from_bytes(checkpoint.to_bytes(trainer.state())))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(model.forward_features(images), trainer.student_model.eval().forward_features(images))  # type: ignore[operator]
    assert normalization == trainer.context.normalize


def test_the_rate_rises_then_falls_to_zero() -> None:
    rates = [warmup_cosine(step, 100, 10) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates == [*rates[:10], *sorted(rates[10:], reverse=True)]
    assert rates[100] == pytest.approx(0, abs=1e-12)


@pytest.mark.slow
def test_steps_follow_the_rate_with_the_warmup_that_was_set(small: Config) -> None:
    config = small.override({"train.warmup": 0.5, "train.lr": 2e-3})
    trainer = StudentTrainer.begin(TrainContext(config), config)
    rates: list[float] = []

    def note(*_: object) -> None:
        assert trainer.optimizer is not None
        rates.extend({group["lr"] for group in trainer.optimizer.param_groups})

    for _ in epochs(trainer, note):
        pass
    assert rates == [2e-3 * warmup_cosine(step, 6, 3) for step in range(6)]
    assert rates[2] == 2e-3 > rates[0]


def test_one_pass_over_the_images_is_an_epoch_by_default(small: Config) -> None:
    config = small.override({"train.steps_per_epoch": 0})
    assert StudentTrainer(TrainContext(config), config).steps_per_epoch == 256 // 16
