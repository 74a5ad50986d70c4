"""grid: each point once, and then no more."""

from __future__ import annotations

import json

import pytest
from optuna.trial import TrialState

from singer_ray.search.strategy.samplers import exhausted, make_sampler
from singer_ray.search.strategy.samplers.grid import grid_exhausted
from tests.search.strategy.sampling import CONDITIONS, NUMBERS, ONE, asked, new_study, setting, spaced


@pytest.mark.parametrize("concurrent", [1, 4])
@pytest.mark.parametrize("queue", [False, True])
def test_a_grid_asks_each_point_exactly_once_and_ends(concurrent: int, queue: bool) -> None:
    space = spaced({**CONDITIONS, "enqueue": [{"method.refiner": "clip", "method.clip.ratio": 1.4}]})
    study = new_study(sampler=make_sampler(setting("grid"), space, ONE))
    for point in space.first_points() if queue else []:
        study.enqueue_trial(point)
    order = asked(study, space, concurrent)
    assert sorted(order) == sorted(json.dumps(point, sort_keys=True) for point in space.points())
    assert space.size() == len(order) == 9
    assert not study.get_trials(states=[TrialState.RUNNING, TrialState.WAITING])
    if queue:
        assert json.loads(order[0]) == {"method.refiner": "clip", "method.clip.ratio": 1.4}
    with pytest.raises(RuntimeError, match="grid_exhausted"):
        space(study.ask())


def test_the_order_of_a_grid_is_that_of_its_seed() -> None:
    space = spaced(CONDITIONS)
    orders = [
        asked(new_study(sampler=make_sampler(setting("grid", seed=seed), space, ONE)), space, 1) for seed in (1, 1, 2)
    ]
    assert orders[0] == orders[1] != orders[2]


def test_a_space_without_end_is_never_exhausted() -> None:
    assert not grid_exhausted(new_study(), spaced(NUMBERS))


def test_only_a_grid_ends_when_each_point_was_asked() -> None:
    space = spaced(CONDITIONS)
    study = new_study(sampler=make_sampler(setting("grid"), space, ONE))
    assert not exhausted(setting("grid"), space, study)
    asked(study, space, 1)
    assert exhausted(setting("grid"), space, study)
    assert not exhausted(setting("tpe"), space, study)
