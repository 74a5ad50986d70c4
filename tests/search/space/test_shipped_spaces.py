"""The shipped search spaces: all that they draw can be built, and their samplers take them."""

from __future__ import annotations

import optuna
import pytest

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
    (first,) = space.first_points()
    assert first == {name: preset.value(name) for name in space.parameters}
    for name, value in first.items():
        low, high = space.parameters[name].extremes()
        assert low < value <= high


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
