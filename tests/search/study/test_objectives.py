"""What is optimised."""

from __future__ import annotations

import pytest

from singer_ray.errors import UserError
from singer_ray.search.study.objectives import Objectives, front

REPORTED = ["val/miou", "val/depth_rmse", "student/parameters", "student/artifact_share"]


def test_direction_follows_the_metric() -> None:
    found = Objectives.of(REPORTED, None, REPORTED)
    assert found.modes == ("max", "min", "min", "min")


def test_the_default_is_the_best_metric_that_the_data_gives() -> None:
    found = Objectives.of((), None, REPORTED)
    assert (found.names, found.modes, found.stop_metric, found.several) == (("val/miou",), ("max",), "val/miou", False)


def test_directions_can_be_given_and_the_stop_metric_named() -> None:
    found = Objectives.of(("val/miou", "student/parameters:max"), "val/depth_rmse", REPORTED)
    assert found.modes == ("max", "max")
    assert (found.stop_metric, found.stop_mode) == ("val/depth_rmse", "min")
    assert found.as_flags() == ["val/miou:max", "student/parameters:max"]
    assert Objectives.of(found.as_flags(), "val/depth_rmse", REPORTED) == found


def test_a_stop_metric_that_is_an_objective_goes_its_way() -> None:
    assert Objectives.of(("val/miou:min",), "val/miou", REPORTED).stop_mode == "min"
    apart = {
        stop: Objectives.of(("val/miou",), stop, REPORTED).stops_apart for stop in (None, "val/miou", "val/miou:min")
    }
    assert apart == {None: False, "val/miou": False, "val/miou:min": True}
    assert Objectives.of(("val/miou",), "val/depth_rmse", REPORTED).stops_apart
    assert Objectives.of(("val/miou", "student/parameters"), None, REPORTED).stops_apart


@pytest.mark.parametrize(
    ("wanted", "stop", "said"),
    [
        (("val/mio",), None, "search.objectives 'val/mio' is never reported. Did you mean val/miou?"),
        (("val/miou",), "val/x", "search.stop_metric 'val/x' is never reported."),
        (("val/miou:up",), None, "Allowed: val/miou:max or val/miou:min"),
        (("val/miou",), "val/miou:up", "search.stop_metric 'val/miou:up' has the direction 'up'"),
        (("val/miou", "val/miou:min"), None, "names val/miou twice"),
    ],
)
def test_mistakes_are_named(wanted: tuple[str, ...], stop: str | None, said: str) -> None:
    with pytest.raises(UserError) as caught:
        Objectives.of(wanted, stop, REPORTED)
    assert said in str(caught.value)


def test_without_annotations_there_is_nothing_to_search_by() -> None:
    with pytest.raises(UserError, match="nothing to optimise"):
        Objectives.of((), None, [])


def test_values_need_all_objectives_finite() -> None:
    both = Objectives.of(("val/miou", "student/parameters"), None, REPORTED)
    assert both.values({"val/miou": 0.5, "student/parameters": 10}) == [0.5, 10.0]
    assert both.values({"val/miou": 0.5}) is None
    assert both.values({"val/miou": float("nan"), "student/parameters": 10}) is None
    assert both.costs([0.5, 10.0]) == [-0.5, 10.0]


def test_the_front_is_what_nothing_dominates() -> None:
    points = [(1.0, 5.0), (2.0, 4.0), (3.0, 4.0), (2.0, 6.0), (0.5, 9.0)]
    assert front(points) == [0, 1, 4]
    assert front([(1.0, 1.0), (1.0, 1.0)]) == [0, 1]  # equals do not dominate each other
    assert front([]) == []
