"""Parameters of a space that are drawn only where conditions hold."""

from __future__ import annotations

from typing import Any

import pytest

from singer_ray.config import Config, load_preset
from singer_ray.errors import UserError
from singer_ray.search.space.space import load_space
from tests.search.space.spaces import CONDITIONAL, RANK, draws


@pytest.fixture(scope="module")
def demo() -> Config:
    return load_preset("demo")


def test_conditional_parameters_are_drawn_only_where_their_conditions_hold(demo: Config) -> None:
    wanted = {"singer": {"method.rank"}, "clip": {"method.clip.ratio"}, "none": set()}
    found = draws(CONDITIONAL, demo)
    assert {p["method.refiner"] for p in found} == set(wanted)
    for parameters in found:
        assert set(parameters) == {"method.refiner"} | wanted[parameters["method.refiner"]]


def test_every_branch_is_tried_once(demo: Config) -> None:
    assert load_space(CONDITIONAL, demo).branches() == [{"method.refiner": r} for r in ("singer", "clip", "none")]
    assert load_space("quick", demo).branches() == []


def test_corners_set_what_their_conditions_need(demo: Config) -> None:
    corners = load_space(CONDITIONAL, demo).corners(demo)
    assert {c.method.refiner for c in corners if c.value("method.clip.ratio") == 2.0} == {"clip"}


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ({"method.refinr": "singer"}, "method.refinr is not a parameter of this space. Did you mean method.refiner?"),
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


def test_conditions_of_parents_that_exclude_each_other_are_refused(demo: Config) -> None:
    """C needs A and B, but A is drawn for one refiner and B for another."""
    space = {
        "method.refiner": {"type": "choice", "values": ["singer", "clip", "none"]},
        "method.radial": {"type": "choice", "values": [True, False], "when": {"method.refiner": ["singer", "none"]}},
        "method.detach_target": {"type": "choice", "values": [True, False], "when": {"method.refiner": "clip"}},
        "method.rank": {**RANK, "when": {"method.radial": True, "method.detach_target": True}},
    }
    with pytest.raises(UserError) as caught:
        load_space(space, demo)
    assert str(caught.value) == (
        "the search space: method.rank is never drawn: its conditions on method.radial, method.detach_target need "
        "method.refiner to be 'singer' or 'none' and 'clip' at once. Change its `when`."
    )


def test_conditions_of_parents_that_overlap_are_met_where_they_do(demo: Config) -> None:
    space = {
        "method.refiner": {"type": "choice", "values": ["singer", "clip", "none"]},
        "method.radial": {"type": "choice", "values": [True, False], "when": {"method.refiner": ["singer", "clip"]}},
        "method.rank": {**RANK, "when": {"method.refiner": ["clip", "none"], "method.radial": False}},
    }
    corners = load_space(space, demo).corners(demo)
    assert {(c.method.refiner, c.method.radial) for c in corners if c.method.rank in (2, 8)} == {("clip", False)}
    drawn = [p for p in draws(space, demo) if "method.rank" in p]
    assert {(p["method.refiner"], p["method.radial"]) for p in drawn} == {("clip", False)}


def test_a_condition_on_a_fixed_setting_is_refused(demo: Config) -> None:
    space = {"method.rank": {**RANK, "when": {"method.refiner": "singer"}}, "fixed": {"method.refiner": "singer"}}
    with pytest.raises(UserError, match="It is fixed to 'singer': leave the condition out"):
        load_space(space, demo)


@pytest.mark.parametrize(
    "point",
    [
        {},
        {"method.refiner": "singer"},
        {"method.refiner": "none", "method.rank": 4},
        {"method.refiner": "vit"},
        {"method.refiner": "singer", "method.rank": 9},
        {"method.refiner": "clip", "method.clip.ratio": 2.5},
        {"method.refiner": "none", "train.lr": 1e-3},
    ],
)
def test_a_space_holds_only_what_it_can_draw(point: dict[str, Any], demo: Config) -> None:
    space = load_space(CONDITIONAL, demo)
    assert space.holds({"method.refiner": "singer", "method.rank": 8})
    assert not space.holds(point)
