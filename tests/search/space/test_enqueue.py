"""The points that a space lists to be tried first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from singer_ray.config import Config, load_preset
from singer_ray.errors import UserError
from singer_ray.search.space.space import load_space
from tests.search.space.spaces import CONDITIONAL


@pytest.fixture(scope="module")
def demo() -> Config:
    return load_preset("demo")


ENQUEUED = {
    **CONDITIONAL,
    "method.strength": {"type": "uniform", "low": 0.5, "high": 1.0, "step": 0.1},
    "train.warmup": {"type": "uniform", "low": 0.0, "high": 0.5},
    "train.batch_size": {"type": "int", "low": 16, "high": 64, "step": 16},
    "train.lr": {"type": "choice", "values": ["1e-3", 0.002]},
}


def test_enqueued_points_come_first_and_cover_their_branches(demo: Config) -> None:
    points = [{"method.refiner": "clip", "method.clip.ratio": 2}, {"train.lr": "1e-3", "method.strength": 0.7}]
    space = load_space({**ENQUEUED, "enqueue": points}, demo)
    assert space.enqueue == [
        {"method.refiner": "clip", "method.clip.ratio": 2.0},
        {"train.lr": 1e-3, "method.strength": 0.7},
    ]
    assert space.first_points() == [*space.enqueue, {"method.refiner": "singer"}, {"method.refiner": "none"}]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for point in space.first_points():
        study.enqueue_trial(point)
    for point in space.first_points():
        trial = study.ask()
        space(trial)
        assert point.items() <= trial.params.items()
        assert space.holds(trial.params)


@pytest.mark.parametrize(
    ("enqueue", "said"),
    [
        ({"train.warmup": 0.1}, "Allowed: a list of points"),
        ([7], "enqueue, point 1 is 7. Allowed: parameters and their values"),
        ([{}], "point 1 is {}"),
        (
            [{"train.warmup": 0.1}, {"train.warmpu": 0.1}],
            "point 2 names 'train.warmpu', which is not a parameter of this space. Did you mean train.warmup?",
        ),
        ([{"method.radial": True}], "'method.radial', which is not a parameter of this space"),
        ([{"train.epochs": 3}], "train.epochs, which is fixed to 3. Leave it out"),
        ([{"train.warmup": 0.6}], "train.warmup is 0.6. Allowed: a number from 0 to 0.5"),
        ([{"train.warmup": "much"}], "train.warmup is 'much'. Allowed: a number"),
        ([{"train.warmup": True}], "train.warmup is True. Allowed: a number"),
        ([{"train.warmup": float("nan")}], "Allowed: a number from 0 to 0.5"),
        ([{"method.strength": 0.75}], "method.strength is 0.75. That is off its step 0.1. Nearest: 0.7 or 0.8"),
        ([{"train.batch_size": 40}], "train.batch_size is 40. That is off its step 16. Nearest: 32 or 48"),
        ([{"train.batch_size": 128}], "train.batch_size is 128. Allowed: 16 to 64"),
        ([{"train.batch_size": 16.5}], "Allowed: a whole number from 16 to 64"),
        ([{"train.batch_size": float("inf")}], "Allowed: a whole number from 16 to 64"),
        ([{"train.lr": 0.003}], "train.lr is 0.003. Allowed: 0.001, 0.002"),
        ([{"method.rank": 4}], "is 'singer', but not method.refiner. Add method.refiner: singer"),
        ([{"method.rank": 4, "method.refiner": "clip"}], "drawn when method.refiner is 'singer', not 'clip'. Leave"),
        ([{"train.warmup": 0.1}, {"train.warmup": 0.1}], "point 2 is that of point 1"),
    ],
)
def test_a_wrong_enqueued_point_is_refused_in_one_line(enqueue: Any, said: str, demo: Config) -> None:
    with pytest.raises(UserError) as caught:
        load_space({**ENQUEUED, "enqueue": enqueue, "fixed": {"train.epochs": 3}}, demo)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_enqueued_point_that_the_configuration_refuses_is_refused(demo: Config) -> None:
    space = {
        "method.variant": {"type": "choice", "values": ["recommended", "paper"]},
        "method.strength": {"type": "choice", "values": [0.5, 1.0]},
        "enqueue": [{"method.variant": "paper", "method.strength": 0.5}],
    }
    with pytest.raises(UserError, match="but the variant paper trains adapter"):
        load_space(space, demo)


def test_a_space_survives_a_file(demo: Config, tmp_path: Path) -> None:
    tree = {**ENQUEUED, "enqueue": [{"train.warmup": 0.1}], "fixed": {"search.objectives": ("val/miou", "val/loss")}}
    space = load_space(tree, demo)
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(space.to_dict(), sort_keys=False))
    again = load_space(str(path), demo)
    assert again.to_dict() == space.to_dict()
    assert (again.distributions, again.enqueue) == (space.distributions, space.enqueue)
    assert again.apply(demo) == space.apply(demo)
