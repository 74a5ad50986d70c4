"""The shipped search spaces: all that they draw can be built, and their samplers take them."""

from __future__ import annotations

import optuna
import pytest
import torch

from singer_ray.config import Config, load_preset
from singer_ray.resources import shipped_names
from singer_ray.search.space.space import load_space
from singer_ray.search.strategy.samplers import check_sampler, make_sampler
from singer_ray.search.study.objectives import Objectives
from singer_ray.training.context import TrainContext
from singer_ray.training.trainer import StudentTrainer


@pytest.fixture(scope="module")
def demo() -> Config:
    return load_preset("demo")


REPORTED = ["val/miou", "student/parameters", "student/artifact_share"]


@pytest.mark.parametrize("name", shipped_names("tune_spaces"))
def test_a_shipped_space_loads_its_draws_are_configurations_and_its_sampler_takes_it(name: str, demo: Config) -> None:
    space = load_space(name, demo)
    config = space.apply(demo)
    objectives = Objectives.of(config.search.objectives, config.search.stop_metric, REPORTED)
    check_sampler(config, space, objectives.names)
    make_sampler(config, space, objectives)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for point in space.first_points():
        study.enqueue_trial(point)
    for _ in range(20):
        trial = study.ask()
        space(trial)
        config.override(trial.params)
    if config.search.sampler == "grid":
        assert space.size() == config.search.trials
    assert load_space(space.to_dict(), demo).to_dict() == space.to_dict()


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_names("tune_spaces"))
def test_a_shipped_space_can_be_built_at_its_corners(name: str, small: Config) -> None:
    if name == "imagenet":  # whose ranks want a wider teacher
        small = small.override({"teacher.name": "vit_tiny_patch16_224", "teacher.pretrained": False})
    space = load_space(name, small)
    config = space.apply(small)
    context = TrainContext(config)
    corners = [*space.corners(config), *(config.override(point) for point in space.first_points())]
    for corner in {corner.model_dump_json(): corner for corner in corners}.values():
        trainer = StudentTrainer(context, corner)
        assert sum(p.numel() for p in trainer.student_model.parameters()) > 1000


def test_the_preset_for_imagenet_is_searched_around_its_own_setting() -> None:
    preset = load_preset("imagenet-vitl-vitt")
    space = load_space(preset.search.space, preset)
    first, *_ = space.first_points()
    kind = first.pop("method.linearization")
    assert kind == preset.method.start_from
    assert first == {name: preset.value(name) for name in first}
    assert set(space.parameters) - set(first) == {n for n, p in space.parameters.items() if p.when} | {
        "method.linearization"
    }
    for name, value in first.items():
        low, high = space.parameters[name].extremes()
        assert low < value <= high


SEARCHED = [
    (space, parameter)
    for space in shipped_names("tune_spaces")
    if space != "imagenet"  # whose parameters are those of `singer`
    for parameter in load_space(space, load_preset("demo")).parameters
]


@pytest.mark.long
@pytest.mark.parametrize(("name", "parameter"), SEARCHED)
def test_every_searched_parameter_makes_another_student(name: str, parameter: str, small: Config) -> None:
    """At the ends of its range, the rest as in the preset, the student of one step differs."""
    space = load_space(name, small)
    settings = {"method.prefit.steps": 2, "train.steps_per_epoch": 2, "train.warmup": 0.0}
    config = space.apply(small).override(settings)
    chosen = {other: wanted[0] for other, wanted in space.parameters[parameter].conditions.items()}
    students = []
    for value in space.parameters[parameter].extremes()[:2]:
        trainer = StudentTrainer.begin(TrainContext(config), config.override({**chosen, parameter: value}))
        pixels = trainer.context.pixels(next(trainer.context.batches(batch_size=16, seed=0)))
        for _ in range(2):
            trainer.step(pixels, trainer.context.teacher_pass(trainer.teacher, pixels))
        students.append(torch.cat([p.detach().flatten() for p in trainer.student_model.parameters()]))
    assert students[0].shape != students[1].shape or not torch.equal(*students)


@pytest.mark.slow
def test_every_student_of_the_shipped_space_can_be_built(small: Config) -> None:
    space = load_space("students", small)
    config = space.apply(small)
    context = TrainContext(config)
    sizes = {}
    for width in space.parameters["student.width"].grid():
        for depth in space.parameters["student.depth"].grid():
            trainer = StudentTrainer(context, config.override({"student.width": width, "student.depth": depth}))
            sizes[width, depth] = sum(p.numel() for p in trainer.student_model.parameters())
    assert len(sizes) == 7 * 5
    assert max(sizes.values()) > 20 * min(sizes.values())
