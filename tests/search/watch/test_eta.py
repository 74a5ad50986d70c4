"""What a search will take: the forecast before it starts, and the time left while it runs, on a virtual clock."""

from __future__ import annotations

import heapq
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from singer_ray.config import load_preset
from singer_ray.nodes.prices import Price
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.opening import create_study
from singer_ray.search.study.schema import METRICS, SECONDS
from singer_ray.search.watch.eta import Estimate, spread, survival
from singer_ray.training.timing import StepTimes
from tests.search.studies import new_ask_tell

MIOU = Objectives(("val/miou",), ("max",), "val/miou", "max")
BEGIN = datetime(2026, 1, 1)
TIMES = StepTimes(start=3.0, step=0.1, evaluation=2.0, steps_per_epoch=50, evaluate_every=1)
"""7 s an epoch, 3 s more for the last one's report."""
Rule = Callable[[list[float], list[list[float]]], bool]
"""Whether a trial stops: by its values so far, and by those of the others."""


@dataclass
class Trial:
    """A simulated trial: what its row in the study says, event by event."""

    begin: float
    pace: float
    """Seconds an epoch."""
    quality: float
    values: list[float] = field(default_factory=list)
    """What it reported after each epoch."""
    reports: list[float] = field(default_factory=list)
    """When each epoch ended."""
    end: float | None = None
    state: str = "RUNNING"

    def row(self, now: float, start: float) -> FrozenTrial:
        """As the study has it at `now`."""
        ended = self.end is not None and self.end <= now
        epochs = sum(when <= now for when in self.reports)
        spent = self.reports[epochs - 1] - self.begin - start if epochs else 0.0
        attributes = {SECONDS: spent, METRICS: {"epoch": epochs}}
        return FrozenTrial(
            0,
            TrialState[self.state if ended else "RUNNING"],
            self.quality if ended and self.state != "FAIL" else None,
            BEGIN + timedelta(seconds=self.begin),
            BEGIN + timedelta(seconds=self.end or 0) if ended else None,
            {},
            {},
            attributes if epochs else {},
            {},
            {},
            0,
        )


def simulate(
    estimate: Estimate, rule: Rule, *, seed: int, pace: float, start: float, failing: float = 0.0
) -> list[Trial]:
    """Plays a search through in virtual time; trials differ in pace and quality, and some fail at once."""
    rng = random.Random(seed)
    trials: list[Trial] = []
    events: list[tuple[float, int]] = []

    def begin(now: float) -> None:
        if len(trials) < estimate.search.trials:
            trials.append(Trial(now, pace * rng.uniform(0.6, 1.4), rng.gauss(0, 1)))
            if rng.random() < failing:
                trials[-1].end, trials[-1].state = now + start, "FAIL"
                heapq.heappush(events, (now + start, len(trials) - 1))
            else:
                heapq.heappush(events, (now + start + trials[-1].pace, len(trials) - 1))

    for _ in range(estimate.concurrent):
        begin(0.0)
    while events:
        now, number = heapq.heappop(events)
        trial = trials[number]
        if trial.state != "FAIL":
            trial.reports.append(now)
            epoch = len(trial.reports)
            curve = 6 * (1 - 0.8**epoch)  # rises by some spreads of the trials, and flattens
            others = [other.values for other in trials if other is not trial]
            trial.values.append(trial.quality + curve + rng.gauss(0, 0.3))
            last = epoch == estimate.epochs
            stops = not last and rule(trial.values, others)
            if not last and not stops:
                heapq.heappush(events, (now + trial.pace, number))
                continue
            trial.end, trial.state = now, "COMPLETE" if last else "PRUNED"
        begin(now)
    return trials


def study_at(trials: list[Trial], now: float, start: float) -> optuna.Study:
    study = create_study(optuna.storages.InMemoryStorage(), "s", MIOU)
    study.add_trials([trial.row(now, start) for trial in trials if trial.begin <= now])
    return study


def asha(grace: int, factor: int) -> Rule:
    """As Ray Tune's ASHAScheduler decides."""
    rungs = [grace * factor**k for k in range(10)]

    def stops(own: list[float], others: list[list[float]]) -> bool:
        epoch = len(own)
        earlier = [values[epoch - 1] for values in others if len(values) >= epoch]
        return epoch in rungs and bool(earlier) and own[-1] < float(np.percentile(earlier, 100 * (1 - 1 / factor)))

    return stops


def median(grace: int, startup: int) -> Rule:
    """As Ray Tune's MedianStoppingRule decides."""

    def stops(own: list[float], others: list[list[float]]) -> bool:
        epoch = len(own)
        means = [sum(values[:epoch]) / epoch for values in others if len(values) >= epoch]
        return epoch >= grace and len(means) >= startup and max(own) < statistics.median(means)

    return stops


def never(own: list[float], others: list[list[float]]) -> bool:
    return False


def expecting(scheduler: str, **changes: Any) -> Estimate:
    config = load_preset("demo").override(
        {
            "search.scheduler": scheduler,
            "search.trials": 50,
            "search.grace_epochs": 2,
            "search.reduction_factor": 3,
            "train.epochs": 20,
            **changes,
        }
    )
    return Estimate.of(config, concurrent=4, gpus=4.0, times=TIMES)


SEARCHES = {"asha": asha(2, 3), "median": median(2, 5), "none": never}


@pytest.mark.parametrize("scheduler", SEARCHES)
def test_at_half_time_the_end_is_known_to_a_quarter(scheduler: str) -> None:
    """Of the total, in nearly all searches; what is left is right on the mean."""
    estimate = expecting(scheduler)
    true, said = [], []
    for seed in range(20):
        trials = simulate(estimate, SEARCHES[scheduler], seed=seed, pace=20.0, start=10.0)  # thrice the time of TIMES
        end = max(trial.end or 0 for trial in trials)
        true.append(end)
        said.append(end / 2 + (estimate.update(study_at(trials, end / 2, 10.0)) or 0))
    errors = np.abs(np.array(said) / np.array(true) - 1)
    assert np.quantile(errors, 0.9) < 0.25
    assert np.median(errors) < 0.15
    assert np.mean(said) == pytest.approx(np.mean(true), rel=0.1)


def test_the_end_settles_as_a_search_goes_on_and_some_trials_fail() -> None:
    estimate = expecting("asha")
    shares = (0.1, 0.5, 0.9)
    errors = []
    for seed in range(20):
        trials = simulate(estimate, asha(2, 3), seed=seed, pace=20.0, start=10.0, failing=0.2)
        end = max(trial.end or 0 for trial in trials)
        left = [estimate.update(study_at(trials, share * end, 10.0)) or 0.0 for share in shares]
        errors.append([abs(share + seconds / end - 1) for share, seconds in zip(shares, left)])
    early, half, late = np.mean(errors, axis=0)
    assert early > half > late
    assert early < 0.4
    assert half < 0.15
    assert late < 0.08


def test_a_finished_search_has_nothing_left_and_one_without_timing_needs_an_epoch() -> None:
    estimate = Estimate(expecting("asha").search, 20, 4)
    assert estimate.update(study_at([], 0.0, 10.0)) is None
    trials = simulate(estimate, asha(2, 3), seed=0, pace=20.0, start=10.0)
    end = max(trial.end or 0 for trial in trials)
    assert estimate.update(study_at(trials, 5.0, 10.0)) is None
    assert estimate.update(study_at(trials, end / 2, 10.0)) == pytest.approx(end / 2, rel=0.25)
    assert estimate.update(study_at(trials, end, 10.0)) == 0.0


def test_no_more_trials_limits_and_repeats_change_what_is_left() -> None:
    estimate = expecting("none")
    trials = simulate(estimate, never, seed=0, pace=20.0, start=10.0)
    study = study_at(trials, 1000.0, 10.0)
    whole, rest = estimate.update(study), estimate.update(study, no_more_trials=True)
    assert whole is not None
    assert rest is not None
    running = [trial for trial in trials if trial.begin <= 1000.0 and (trial.end or 0) > 1000.0]
    assert rest == pytest.approx(max(trial.end or 0 for trial in running) - 1000.0, rel=0.25)
    assert rest < whole / 4
    assert estimate.update(study, most=60.0) == 60.0
    again = expecting("none", **{"search.repeats": 3, "search.repeat_top": 4})  # 8 more trainings, 4 at a time
    repeats = study_at([], 0.0, 10.0)
    one = (again.update(study, repeats) or 0) - whole
    assert one == pytest.approx(2 * 20 * 20, rel=0.3)
    repeats = study_at(trials[:4], 1e9, 10.0)
    assert (again.update(study, repeats) or 0) - whole == pytest.approx(one / 2)


def test_the_forecast_says_trials_time_and_cost_in_a_line() -> None:
    estimate = expecting("none", **{"search.trials": 12, "train.epochs": 6})
    price = Price(4.0, 2, "by search.price_per_node_hour")
    seconds = 3 * (3.0 + 1.5 + 6 * (7.0 + 0.2) + 3.0)  # three rounds of four
    assert estimate.whole(price) == pytest.approx((seconds, seconds))
    assert 4 * seconds / 3600 == pytest.approx(0.17, abs=0.005)
    assert estimate.forecast(price) == (
        "about 12 trials x 6 epochs: 3 min on 4 at a time, at most 0.17 GPU-hours, $0.17 "
        "(by search.price_per_node_hour)"
    )
    free = Estimate(estimate.search, 6, 4, 0.0, TIMES)
    assert free.forecast(None) == "about 12 trials x 6 epochs: 3 min on 4 at a time"
    limited = expecting("none", **{"search.gpu_hours": 0.1})
    assert limited.whole(None) == (90.0, 90.0)
    assert limited.forecast(None).endswith("at most 0.1 GPU-hours; the search's limit ends it then")


def test_the_forecast_of_a_stopping_scheduler_is_a_span() -> None:
    estimate = expecting("asha")
    low, high = estimate.whole(None)
    assert low < 0.6 * high
    assert f"{low / 60:.0f}-{high / 60:.0f} min on 4 at a time" in estimate.forecast(None)
    ends = [
        max(t.end or 0 for t in simulate(estimate, asha(2, 3), seed=seed, pace=7.2, start=4.5)) for seed in range(5)
    ]
    assert low == pytest.approx(np.mean(ends), rel=0.15)


def test_what_is_expected_of_asha_is_what_it_does() -> None:
    """Halving by rank keeps more than one in three of few trials, and comes near it with many."""
    for trials, tolerance in ((9, 0.1), (50, 0.05), (400, 0.03)):
        estimate = expecting("asha", **{"search.trials": trials})
        expected = survival(estimate.search, 20)
        found = np.zeros(20)
        repeats = max(3, 600 // trials)
        for seed in range(repeats):
            for trial in simulate(estimate, asha(2, 3), seed=seed, pace=1.0, start=0.0):
                found[: len(trial.reports)] += 1 / (repeats * trials)
        assert expected == pytest.approx(found.tolist(), abs=tolerance), trials
    assert expected[2] == pytest.approx(1 / 3, abs=0.02)


def test_later_trials_of_asha_are_expected_to_be_stopped_more_often() -> None:
    search = expecting("asha").search
    assert survival(search, 20, range(1))[2] == 1.0  # the first has nobody to beat
    assert survival(search, 20, range(5))[2] > survival(search, 20)[2] > survival(search, 20, range(25, 50))[2]


@pytest.mark.parametrize(
    ("scheduler", "epochs", "expected"),
    [
        ("none", 4, [1.0] * 4),
        ("asha", 2, [1.0] * 2),  # grace_epochs: nothing to stop
        ("median", 4, [1.0, 1.0, 0.55, 0.55]),  # half of the 45 after startup_trials
    ],
)
def test_the_shares_of_the_other_schedulers(scheduler: str, epochs: int, expected: list[float]) -> None:
    assert survival(expecting(scheduler).search, epochs) == pytest.approx(expected, abs=0.03)


def test_the_brackets_of_hyperband_begin_one_rung_after_the_other() -> None:
    found = survival(expecting("hyperband", **{"search.trials": 3000}).search, 7)  # rungs at 2 and 6: three brackets
    assert found[0] == found[1] == 1.0
    assert found[2] == found[5] == pytest.approx((1 / 3 + 1 + 1) / 3, abs=0.02)
    assert found[6] == pytest.approx((1 / 9 + 1 / 3 + 1) / 3, abs=0.02)


def test_lengths_follow_the_shares_and_are_mixed() -> None:
    lengths = spread([1.0, 1.0, 0.4, 0.4, 0.1], 20)
    assert sorted(lengths) == [2] * 12 + [4] * 6 + [5] * 2
    assert lengths != sorted(lengths)
    assert spread([0.75, 0.75], 4).count(0) == 1  # one in four fails before its first epoch ends
    assert spread([1.0], 0) == []


def test_queued_trials_take_no_place_from_the_time_left() -> None:
    """One at a time, a minute an epoch, four epochs: one trial is in its second, and another waits behind it."""
    estimate = Estimate.of(
        load_preset("demo").override({"search.trials": 2, "search.scheduler": "none", "train.epochs": 4}),
        concurrent=1,
        gpus=0.0,
        times=None,
    )
    ask_tell = new_ask_tell(epochs=4, trials=2)
    ask_tell.ask("a")
    ask_tell.ask("b")
    ask_tell.placed(2.0, {"000": 1.0})
    ask_tell.report(0, {"epoch": 1, "val/miou": 0.1})
    ask_tell.study._storage.set_trial_user_attr(ask_tell.study.trials[0]._trial_id, SECONDS, 60.0)
    assert estimate.update(ask_tell.study) == pytest.approx(2.5 * 60 + 4 * 60)
