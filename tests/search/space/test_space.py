"""Search spaces: what they draw, and what they say about a wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from singer_ray.config import Config, load_preset
from singer_ray.errors import UserError
from singer_ray.search.space.space import load_space
from tests.search.space.spaces import RANK, draws


@pytest.fixture(scope="module")
def demo() -> Config:
    return load_preset("demo")


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


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({}, "is empty"),
        ({"method.rnk": {"type": "int", "low": 1, "high": 2}}, "'method.rnk' is not a setting. Did you mean method"),
        ({"method": {"rank": {"type": "int", "low": 1, "high": 2}}}, "'method' is not a setting"),
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
        ({"search.space": {"type": "choice", "values": ["a"]}}, "Set it with --search.space instead."),
        ({"fixed": {"train.epochs": 3}}, "has no parameter. Name at least one setting"),
        ({"fixed": {}, "enqueue": []}, "has no parameter"),
        ({"method.rank": {"type": "float", "low": 1, "high": 2}}, "Allowed: {type: choice | int"),
        (
            {"method.rank": {"type": "int", "low": 4, "high": 32, "step": 5}},
            "step 5 leads from low 4 past high 32. Let high be 29 or 34",
        ),
        ({"method.rank": {"type": "int", "low": 4, "high": 32, "step": 100}}, "Let high be 4 or 104"),
        ({"method.rank": {"type": "int", "low": 4, "high": 32, "step": 0}}, "greater than or equal to 1"),
        ({"method.rank": {"type": "int", "low": 4, "high": 32, "step": 2, "log": True}}, "step 2 with log: true"),
        ({"method.strength": {"type": "uniform", "low": 0.5, "high": 1.0, "step": 0.2}}, "Let high be 0.9 or 1.1"),
        ({"method.strength": {"type": "uniform", "low": 0.5, "high": 1.0, "step": -0.1}}, "greater than 0"),
        ({"train.lr": {"type": "loguniform", "low": 1e-3, "high": 1e-2, "step": 1e-3}}, "a loguniform has no step"),
        ({"method.radial": {"type": "choice", "values": [True, False, True]}}, "names True twice"),
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


def test_fixed_settings_hold_for_all_trials_unless_they_were_typed(demo: Config) -> None:
    tree = {
        "method.rank": RANK,
        "fixed": {
            "train.epochs": 3,
            "train.lr": "2e-3",
            "search.sampler": "random",
            "seed": 4,
            "search.objectives": ["val/miou:max"],
            "data.image_size": 48,
            "teacher.name": "demo-clean",
        },
    }
    space = load_space(tree, demo)
    config = space.apply(demo)
    assert (config.train.epochs, config.train.lr, config.search.sampler, config.seed) == (3, 2e-3, "random", 4)
    assert (config.data.image_size, config.teacher.name) == (48, "demo-clean")
    assert space.fixed["search.objectives"] == ["val/miou:max"]
    kept = space.apply(demo, given={"train.epochs", "seed"})
    assert (kept.train.epochs, kept.train.lr, kept.seed) == (demo.train.epochs, 2e-3, demo.seed)


def test_corners_are_checked_with_what_is_fixed(demo: Config) -> None:
    strength = {"method.strength": {"type": "uniform", "low": 0.5, "high": 1.0}}
    load_space(strength, demo)
    with pytest.raises(UserError, match=r"method.strength is 0.5, but the variant paper"):
        load_space({**strength, "fixed": {"method.variant": "paper"}}, demo)
    load_space({**strength, "fixed": {"method.variant": "paper"}}, demo, given=["method.variant"])


@pytest.mark.parametrize(
    ("fixed", "said"),
    [
        (["train.epochs"], "fixed is ['train.epochs']. Allowed: settings and their values"),
        ({"train.epoch": 3}, "'train.epoch' is not a setting. Did you mean train.epochs?"),
        ({"train": {"epochs": 3}}, "'train' is not a setting"),
        ({"method.rank": 8}, "method.rank is both a parameter and fixed to 8"),
        ({"search.space": "singer"}, "fixed sets search.space to 'singer', but a space is found through it"),
        ({"train.epochs": "many"}, "train.epochs is 'many'. Allowed: a whole number"),
        ({"search.sampler": "bayes"}, "search.sampler is 'bayes'. Allowed: 'tpe'"),
        ({"method.refiner": "official"}, "method.refiner is 'official'"),
    ],
)
def test_a_wrong_fixed_setting_is_refused_in_one_line(fixed: Any, said: str, demo: Config) -> None:
    with pytest.raises(UserError) as caught:
        load_space({"method.rank": RANK, "fixed": fixed}, demo)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_misspelt_reserved_name_is_recognised(demo: Config) -> None:
    with pytest.raises(UserError, match=r"'enque' is not a setting. Did you mean enqueue\?"):
        load_space({"method.rank": RANK, "enque": []}, demo)


def test_size_counts_the_points_that_differ(demo: Config) -> None:
    finite = {
        "method.refiner": {"type": "choice", "values": ["singer", "clip", "none"]},
        "method.rank": {"type": "int", "low": 4, "high": 8, "step": 2, "when": {"method.refiner": "singer"}},
        "method.radial": {"type": "choice", "values": [True, False], "when": {"method.refiner": ["singer", "none"]}},
        "method.strength": {"type": "uniform", "low": 0.7, "high": 1.0, "step": 0.1, "when": {"method.radial": True}},
        "train.lr": {"type": "loguniform", "low": 1e-3, "high": 1e-3},
    }
    space = load_space(finite, demo)
    points = list(space.points())
    # singer: 3 ranks x (4 strengths + 1); clip: 1; none: 4 strengths + 1
    assert space.size() == len(points) == 3 * 5 + 1 + 5
    assert len({tuple(sorted(point.items())) for point in points}) == len(points)
    assert all(space.holds(point) for point in points)
    assert {p["method.strength"] for p in points if "method.strength" in p} == {0.7, 0.8, 0.9, 1.0}
    seen = {
        tuple(sorted((n, round(v, 9) if isinstance(v, float) else v) for n, v in p.items()))
        for p in draws(finite, demo, 500)
    }
    assert len(seen) == len(points)
    finite["train.lr"] = {"type": "loguniform", "low": 1e-3, "high": 1e-2}
    assert load_space(finite, demo).size() is None


def test_numbers_that_yaml_takes_for_text_are_numbers(demo: Config, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = (
        "train.lr: {type: choice, values: [1e-3, 2e-3]}\nenqueue: [{train.lr: 2e-3}]\nfixed: {train.weight_decay: 1e-2}"
    )
    path.write_text(text)
    space = load_space(str(path), demo)
    assert [p["train.lr"] for p in space.points()] == [0.001, 0.002]
    assert (space.enqueue, space.fixed) == ([{"train.lr": 0.002}], {"train.weight_decay": 0.01})
