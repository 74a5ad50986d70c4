"""Trainers whose teacher is read through a wrapper: resumes, shared passes, several processes, metrics."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from singer_ray.analysis.findings import AnalysisSettings
from singer_ray.analysis.run import run_analysis
from singer_ray.config import Config
from singer_ray.method.artifacts import max_median_ratio, patch_norms
from singer_ray.training import checkpoint
from singer_ray.training import trainer as trainer_module
from singer_ray.training.context import TrainContext
from singer_ray.training.loop import epochs
from singer_ray.training.sharing import SharedPasses
from singer_ray.training.trainer import StudentTrainer
from singer_ray.vision.students import MisfitError
from tests.training.test_loop import run, untimed, weights

REGISTERS = {"method.wrapper": "registers", "method.refiner": "none"}
FITTED = {"method.wrapper": "registers", "method.linearization": "attention_mlp", "method.freeze": False}
SHIFTED = {"method.wrapper": "shift_average", "method.refiner": "none", "method.shift_average.views": 3}


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "CALIBRATION_IMAGES", 48)


def test_without_a_wrapper_a_checkpoint_is_as_before(small: Config) -> None:
    trainer = StudentTrainer.begin(TrainContext(small), small.override({"method.refiner": "none"}))
    assert set(trainer.state()) == set(checkpoint.MEMBER)


@pytest.mark.slow
def test_a_checkpoint_without_what_the_wrapper_found_is_refused(small: Config) -> None:
    config = small.override(REGISTERS)
    context = TrainContext(config)
    state = StudentTrainer.begin(context, config).state()
    del state["wrapper"]
    with pytest.raises(MisfitError):
        StudentTrainer.begin(context, config, state)


@pytest.mark.long
@pytest.mark.parametrize("settings", [FITTED, SHIFTED], ids=["registers", "shift_average"])
def test_a_resumed_run_ends_with_the_same_bits(
    small: Config, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small.override(settings)
    whole, end = run(config)
    trainer = StudentTrainer.begin(TrainContext(config), config)
    next(epochs(trainer))
    saved = checkpoint.from_bytes(checkpoint.to_bytes(trainer.state()))
    monkeypatch.setattr(type(trainer.teacher), "observe", lambda *_: pytest.fail("a resume looks again"))
    resumed = StudentTrainer.begin(TrainContext(config), config, saved)
    assert [untimed(m) for m in epochs(resumed)] == whole[1:]
    assert torch.equal(weights(resumed.state()), weights(end))


@pytest.mark.slow
def test_trainers_share_the_passes_of_those_that_read_the_teacher_alike(small: Config) -> None:
    settings: dict[str, dict[str, Any]] = {
        "plain": {"method.refiner": "none"},
        "clip": {"method.refiner": "clip"},
        "registers": REGISTERS,
        "both": {**FITTED, "method.prefit.steps": 1},
        "shifted": SHIFTED,
    }
    context = TrainContext(small)
    together, alone = (
        {name: StudentTrainer.begin(context, small.override(each)) for name, each in settings.items()} for _ in range(2)
    )
    passes = SharedPasses(together)
    assert [names for _, names in passes.groups] == [["plain", "clip"], ["registers", "both"], ["shifted"]]
    assert [teacher.layers for teacher, _ in passes.groups] == [(3, 5), (3, 4, 5), (3, 5)]
    batches = context.batches(batch_size=16, seed=0)
    for _ in range(2):
        pixels = context.pixels(next(batches))
        features = passes(context, pixels)
        for name, trainer in together.items():
            trainer.step(pixels, features[name])
            alone[name].step(pixels, context.teacher_pass(alone[name].teacher, pixels))
    for name, trainer in together.items():
        assert torch.equal(weights(trainer.state()), weights(alone[name].state())), name


@pytest.mark.long
def test_metrics_compare_with_the_teacher_as_it_is_and_lines_say_what_was_done(small: Config) -> None:
    lines: list[str] = []
    metrics = {}
    arms: dict[str, dict[str, Any]] = {"plain": {"method.refiner": "none"}, "registers": REGISTERS, "shifted": SHIFTED}
    for name, settings in arms.items():
        config = small.override({**settings, "train.epochs": 1})
        trainer = StudentTrainer.begin(TrainContext(config), config, log=lines.append)
        (metrics[name],) = epochs(trainer)
    for layer in (3, 5):
        ratio = f"max_median_norm/{layer}"
        assert metrics["registers"][f"teacher/{ratio}"] == metrics["plain"][f"teacher/{ratio}"] > 8
        assert metrics["registers"][f"refined/{ratio}"] < 2
        assert metrics["plain"][f"refined/gram_cosine/{layer}"] == pytest.approx(1)
        assert metrics["plain"][f"refined/normal_change/{layer}"] == 0
        for name in ("registers", "shifted"):
            assert metrics[name][f"refined/gram_cosine/{layer}"] < 0.99
            assert metrics[name][f"refined/normal_change/{layer}"] > 0.01
    moved, cost = lines
    assert moved.startswith("registers: moves 3 neurons (3 in block 2) to a token of their own; largest over median")
    assert cost == "every teacher pass is 3 passes (method.wrapper shift_average)"


@pytest.mark.long
def test_an_analysis_sets_the_wrapper_against_the_teacher_as_it_is(small: Config, tmp_path: Path) -> None:
    lines: list[str] = []
    config = small.override({**REGISTERS, "evaluation.batch_size": 32})
    result = run_analysis(config, tmp_path / "out", AnalysisSettings(steps=2, images=32), log=lines.append)
    metrics = result["metrics"]
    assert metrics["teacher/max_median_norm/3"] > 8
    assert metrics["refined/max_median_norm/3"] < 2
    assert metrics["bias_start/none/gradient_share"] > 2 * metrics["bias_start/registers/gradient_share"]
    assert "registers brings the same tokens' share of the gradient" in result["verdict"]["text"]
    assert (tmp_path / "out" / "norm_maps.png").is_file()


PROCESS = """
import sys, torch
from torch import distributed
from singer_ray.config import Config
from singer_ray.method.wrappers.registers.wrapper import Registers
from singer_ray.training.context import TrainContext
from singer_ray.training import trainer as trainer_module
from singer_ray.training.trainer import StudentTrainer
trainer_module.CALIBRATION_IMAGES = 48
rank, place, settings = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=2)
if rank:  # what a machine with other rounding might find
    Registers.observe = lambda self, images: self.take({"neurons": torch.tensor([[0, 1]])})
config = Config.model_validate_json(settings)
context = TrainContext(config)
trainer = StudentTrainer.begin(context, config, rank=rank, world=2)
batches = context.batches(batch_size=16, rank=rank, world=2, seed=0)
for _ in range(2):
    pixels = context.pixels(next(batches))
    trainer.step(pixels, context.teacher_pass(trainer.teacher, pixels))
torch.save(trainer.state(), f"{place}/{rank}.pt")
"""


@pytest.mark.long
def test_all_processes_move_the_same_neurons_and_end_with_the_same_student(small: Config, tmp_path: Path) -> None:
    settings = small.override({**REGISTERS, "train.workers": 2}).model_dump_json()
    command = [sys.executable, "-c", PROCESS]
    both = [subprocess.Popen([*command, str(rank), str(tmp_path), settings]) for rank in range(2)]
    try:
        assert [process.wait(timeout=300) for process in both] == [0, 0]
    finally:
        for process in both:
            process.kill()
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert first["wrapper"]["neurons"].shape == (3, 2)
    assert torch.equal(first["wrapper"]["neurons"], second["wrapper"]["neurons"])
    assert torch.equal(weights(first), weights(second))


@pytest.mark.slow
def test_the_demonstrations_artifacts_go_at_both_distilled_layers(small: Config) -> None:
    config = small.override(REGISTERS)
    context = TrainContext(config)
    trainer = StudentTrainer(context, config)
    trainer.observe()
    pixels = context.pixels(next(context.batches(batch_size=64, seed=3)))
    for layer, most in ((3, 1.5), (5, 1.5)):
        norms = [patch_norms(f(pixels).tokens[layer][:, 1:]) for f in (trainer.teacher.plain, trainer.teacher)]
        before, after = (float(max_median_ratio(each).mean()) for each in norms)
        assert before > 8
        assert after < most
