"""Parameters of a space whose values decide nothing."""

from __future__ import annotations

from typing import Any

import pytest

from singer_ray.config import load_preset
from singer_ray.errors import UserError
from singer_ray.resources import shipped_names
from singer_ray.search.space.dead import space_remarks
from singer_ray.search.space.space import load_space

RATIO = {"type": "uniform", "low": 1.0, "high": 4.0}
REFINERS = {"type": "choice", "values": ["singer", "clip"]}


def said(space: dict[str, Any] | str, given: dict[str, Any] | None = None) -> list[str]:
    config = load_preset("demo").override(given or {})
    found = load_space(space, config, given or {})
    return space_remarks(found, found.apply(config, given or {}), given or {})


@pytest.mark.parametrize("name", shipped_names("tune_spaces"))
def test_shipped_spaces_search_nothing_that_has_no_effect(name: str) -> None:
    assert said(name) == []


def test_a_parameter_that_never_has_an_effect_is_refused() -> None:
    with pytest.raises(UserError, match=r"method.clip.ratio is searched, but method.clip.ratio has no effect"):
        said({"method.clip.ratio": RATIO})
    with pytest.raises(UserError, match=r"method.linearization is searched"):
        said("singer", {"method.refiner": "none"})


def test_a_parameter_that_sometimes_has_one_is_told() -> None:
    (line,) = said({"method.refiner": REFINERS, "method.clip.ratio": RATIO})
    assert line.startswith("at some points of the space method.clip.ratio has no effect: method.refiner is 'singer'")
    assert "`when`" in line


def test_conditions_are_respected() -> None:
    assert said({"method.refiner": REFINERS, "method.clip.ratio": {**RATIO, "when": {"method.refiner": "clip"}}}) == []


def test_a_given_setting_counts_where_the_space_reaches_it() -> None:
    space = {"method.refiner": REFINERS}
    assert said(space, {"method.clip.ratio": 2.0, "method.rank": 4}) == []
    (line,) = said(space, {"method.vitkd.mask_ratio": 0.4})
    assert line.startswith("method.vitkd.mask_ratio has no effect")
