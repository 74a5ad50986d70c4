"""Search spaces: what they draw, and what they say about a wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from singer_ray.config import Config, load_preset
from singer_ray.errors import UserError
from singer_ray.resources import shipped_names
from singer_ray.search.space import load_space


@pytest.fixture(scope="module")
def demo() -> Config:
    return load_preset("demo")


def draws(space: dict[str, Any], config: Config, count: int = 200) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [study.ask() for _ in range(count)]
    for trial in trials:
        load_space(space, config)(trial)
    return [trial.params for trial in trials]


def test_values_lie_where_the_space_says(demo: Config) -> None:
    space = {
        "method.rank": {"type": "int", "low": 4, "high": 32, "step": 4},
        "method.strength": {"type": "uniform", "low": 0.5, "high": 1.0, "step": 0.25},
        "train.lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2},
        "method.refiner": {"type": "choice", "values": ["singer", "none"]},
    }
    found = draws(space, demo)
    assert {p["method.rank"] for p in found} == set(range(4, 33, 4))
    assert {p["method.strength"] for p in found} == {0.5, 0.75, 1.0}
    assert {p["method.refiner"] for p in found} == {"singer", "none"}
    below = sum(p["train.lr"] < 1e-3 for p in found) / len(found)
    assert 0.4 < below < 0.6  # one of the two orders of magnitude


@pytest.mark.parametrize("name", shipped_names("tune_spaces"))
def test_shipped_spaces_load_and_every_draw_is_a_configuration(name: str, demo: Config) -> None:
    space = load_space(name, demo)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        space(trial)
        demo.override(trial.params)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({}, "is empty"),
        ({"method.rnk": {"type": "int", "low": 1, "high": 2}}, "'method.rnk' names no knob. Did you mean method.rank?"),
        ({"method": {"rank": {"type": "int", "low": 1, "high": 2}}}, "'method' names no knob"),
        ({"method.rank": 16}, "method.rank is 16. Allowed: {type: choice | int | uniform | loguniform}"),
        ({"method.rank": {"type": "integer", "low": 1, "high": 2}}, "Allowed: {type: choice | int"),
        ({"method.rank": {"type": "int", "low": 1}}, "method.rank.high"),
        ({"method.rank": {"type": "int", "low": 9, "high": 2}}, "low 9 is above high 2"),
        ({"method.rank": {"type": "int", "low": 1, "high": 2, "hgih": 3}}, "hgih"),
        ({"train.lr": {"type": "loguniform", "low": 0.0, "high": 1.0}}, "must be above 0 on a logarithmic scale"),
        ({"method.refiner": {"type": "choice", "values": []}}, "at least 1"),
        ({"method.refiner": {"type": "choice", "values": ["singer", "vit"]}}, "method.refiner is 'vit'"),
        ({"method.strength": {"type": "uniform", "low": 0.5, "high": 3.0}}, "1.25"),
        ({"train.lr": {"type": "uniform", "low": float("nan"), "high": 1.0}}, "finite"),
        ({"train.epochs": {"type": "int", "low": 1, "high": 9}}, "must be the same in all trials"),
        ({"seed": {"type": "int", "low": 1, "high": 9}}, "must be the same in all trials"),
    ],
)
def test_a_wrong_space_is_refused_in_one_line(space: dict[str, Any], said: str, demo: Config) -> None:
    with pytest.raises(UserError) as caught:
        load_space(space, demo)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "is empty"), ("- method.rank", "holds a list"), ("a: {b", "not valid YAML"), ("\x00", "not valid YAML")],
)
def test_a_wrong_file_is_refused_by_its_name(text: str, said: str, demo: Config, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        load_space(str(path), demo)
    assert "mine.yaml" in str(caught.value)


def test_a_missing_file_is_answered_with_what_there_is(demo: Config) -> None:
    with pytest.raises(UserError, match=r"'singr' is neither a file nor a shipped space. Allowed: .*singer"):
        load_space("singr", demo)


CONDITIONAL = {
    "method.rank": {"type": "int", "low": 2, "high": 8, "when": {"method.refiner": "singer"}},
    "method.clip.ratio": {"type": "uniform", "low": 1.0, "high": 2.0, "when": {"method.refiner": ["clip"]}},
    "method.refiner": {"type": "choice", "values": ["singer", "clip", "none"]},
}


def test_conditional_parameters_are_drawn_only_where_their_conditions_hold(demo: Config) -> None:
    wanted = {"singer": {"method.rank"}, "clip": {"method.clip.ratio"}, "none": set()}
    found = draws(CONDITIONAL, demo)
    assert {p["method.refiner"] for p in found} == set(wanted)
    for parameters in found:
        assert set(parameters) == {"method.refiner"} | wanted[parameters["method.refiner"]]


def test_every_branch_is_tried_once(demo: Config) -> None:
    assert load_space(CONDITIONAL, demo).branches() == [{"method.refiner": r} for r in ("singer", "clip", "none")]
    assert load_space("singer", demo).branches() == []


def test_corners_set_what_their_conditions_need(demo: Config) -> None:
    corners = load_space(CONDITIONAL, demo).corners(demo)
    assert {c.method.refiner for c in corners if c.method.clip.ratio == 2.0} == {"clip"}


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ({"method.refinr": "singer"}, "method.refinr is no parameter of this space. Did you mean method.refiner?"),
        ({"method.refiner": "vitkd"}, "which it never is. Allowed: singer, clip"),
        ({"method.refiner": []}, "which it never is"),
        ({"train.lr": 0.1}, "a loguniform. Allowed: a choice parameter"),
    ],
)
def test_contradictory_conditions_are_refused(when: dict[str, Any], said: str, demo: Config) -> None:
    space = {
        "method.rank": {"type": "int", "low": 2, "high": 8, "when": when},
        "method.refiner": {"type": "choice", "values": ["singer", "clip"]},
        "train.lr": {"type": "loguniform", "low": 1e-3, "high": 1e-2},
    }
    with pytest.raises(UserError) as caught:
        load_space(space, demo)
    assert said in str(caught.value)


def test_conditions_that_wait_for_one_another_are_refused(demo: Config) -> None:
    space = {
        "method.refiner": {"type": "choice", "values": ["singer", "none"], "when": {"method.variant": "paper"}},
        "method.variant": {"type": "choice", "values": ["paper"], "when": {"method.refiner": "singer"}},
    }
    with pytest.raises(UserError, match="wait for one another"):
        load_space(space, demo)
