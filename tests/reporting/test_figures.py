"""The figures of a report."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from singer_ray.reporting.page import parameter_figures, trial_figures
from singer_ray.reporting.page.style import CURVE_POINTS, thinned
from singer_ray.reporting.reading.axis import Axis, log_ticks
from singer_ray.reporting.reading.record import SearchRecord
from singer_ray.reporting.reading.search_reader import read_search
from singer_ray.reporting.text import MISSING, duration, number, score, short_names
from tests.reporting.searches import REFINERS, fake_search


@pytest.fixture(scope="module")
def search(finished: Path) -> SearchRecord:
    return read_search(finished)


@pytest.mark.parametrize(("objective", "best_of"), [("val/miou", max), ("val/depth_rmse", min)])
def test_the_running_best_is_the_best_up_to_each_trial(tmp_path: Path, objective: str, best_of: object) -> None:
    search = read_search(fake_search(tmp_path / "search", objectives=(objective,)))
    drawn = trial_figures.history(search, 0)
    assert drawn is not None
    line = next(t for t in drawn.data if t.name == "best so far")
    finished = {t.number: t.values[0] for t in search.finished if t.values}
    for at, value in zip(line.x, line.y):
        assert callable(best_of)
        assert value == pytest.approx(best_of(v for n, v in finished.items() if n <= at), rel=1e-4)
    assert line.x[-1] == 39


def test_learning_curves_hold_every_trial_and_the_best_apart(search: SearchRecord) -> None:
    drawn = trial_figures.learning_curves(search)
    assert drawn is not None
    ids = [{i for i in trace.customdata if i} for trace in drawn.data]
    assert sum(map(len, ids)) == sum(bool(t.curve) for t in search.trials)
    assert search.best is not None
    assert ids[-1] == {search.best.id}
    opacity = {trace.name: trace.opacity for trace in drawn.data}
    assert opacity["stopped early"] < opacity["finished"]


def test_long_curves_keep_their_ends() -> None:
    curve = {n: math.sin(n) for n in range(1, 1001)}
    points = thinned(curve)
    assert len(points) <= CURVE_POINTS
    assert points[0] == (1, curve[1])
    assert points[-1] == (1000, curve[1000])
    assert thinned({1: 0.5, 2: 0.6}) == [(1, 0.5), (2, 0.6)]


def test_trials_in_one_row_of_the_timeline_do_not_overlap(search: SearchRecord) -> None:
    drawn = trial_figures.timeline(search)
    assert drawn is not None
    from datetime import datetime

    bars = [
        (row, datetime.fromisoformat(str(base)).timestamp(), length / 1000)
        for trace in drawn.data
        for row, base, length in zip(trace.y, trace.base, trace.x)
    ]
    assert len(bars) == 40
    for (row, begin, seconds), (next_row, next_begin, _) in pairwise(sorted(bars)):
        assert row != next_row or begin + seconds <= next_begin + 2  # begins are drawn to the second


def test_a_parameter_that_a_trial_lacks_has_a_place_below_the_range(tmp_path: Path) -> None:
    search = read_search(fake_search(tmp_path / "search", trials=60, space=REFINERS, states=["COMPLETE"] * 60))
    drawn = parameter_figures.parallel_coordinates(search, 0)
    assert drawn is not None
    dimensions = dict(zip([*REFINERS, "value"], drawn.data[0].dimensions))
    ratio = dimensions["method.clip.ratio"]
    lacking = [t.parameters["method.refiner"] != "clip" for t in search.finished]
    assert [value < 1.0 for value in ratio["values"]] == lacking
    assert ratio["ticktext"][0] == MISSING
    assert MISSING not in dimensions["train.lr"]["ticktext"]


def test_slices_span_the_range_searched(search: SearchRecord) -> None:
    drawn = parameter_figures.slice_of(search, "train.lr", 0)
    assert drawn is not None
    low, high = drawn.layout.xaxis.range
    assert 10**low < 1e-3 < 8e-3 < 10**high
    assert drawn.layout.xaxis.type == "log"
    stars = [t for t in drawn.data if t.name == "best"]
    assert search.best is not None
    assert [point[0] for point in stars[0].customdata] == [search.best.id]


def test_axes_measure_as_the_search_drew() -> None:
    log = Axis("lr", FloatDistribution(1e-3, 1e-1, log=True))
    assert log.share(1e-2) == pytest.approx(0.5)
    assert log.value_at(1.5) == pytest.approx(1.0)
    assert Axis("rank", IntDistribution(4, 8)).share(5) == 0.25
    assert Axis("refiner", CategoricalDistribution(("a", None, True))).place(None) == 1
    assert Axis("fixed", FloatDistribution(2.0, 2.0)).share(2.0) == 0.5
    for low, high in ((4, 32), (1e-5, 1e3), (0.9, 1.1), (3.0, 3.0)):
        ticks = log_ticks(low, high)
        assert ticks[0] == low
        assert ticks[-1] == high
        assert len(ticks) <= 7
        assert ticks == sorted(ticks)


def test_names_and_numbers_are_short_and_clear() -> None:
    assert short_names(["method.clip.ratio", "train.lr", "evaluation.lr"]) == {
        "method.clip.ratio": "ratio",
        "train.lr": "train.lr",
        "evaluation.lr": "evaluation.lr",
    }
    shown = [number(v) for v in (None, 0.00123456, 12, 5526336, 5526336.0, True, "singer")]
    assert shown == [MISSING, "0.001235", "12", "5,526,336", "5,526,336", "True", "singer"]
    assert [score(v) for v in (0.5, 90_000.0, None)] == ["0.5000", "90,000", MISSING]
    assert [duration(s) for s in (2.34, 59.7, 61, 3600, 93_700, None)] == [
        "2.3 s",
        "1 min",
        "1 min 1 s",
        "1 h",
        "1 d 2 h",
        MISSING,
    ]
