"""How long a search will take: before it starts, from a few timed steps; while it runs, from what trials really took.

Both play the search through: trials of the lengths that the scheduler is expected to leave, on as many places as run
at a time.
"""

from __future__ import annotations

import heapq
import math
from bisect import insort
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, count, takewhile
from random import Random
from statistics import median
from typing import TYPE_CHECKING

from singer_ray.search.strategy.cost import HOUR, Spending, duration
from singer_ray.search.strategy.stopping import Budget
from singer_ray.search.study.schema import (
    COMPLETE,
    QUEUED,
    RESUMED,
    RUNNING,
    SECONDS,
    STARTED,
    WAITED,
    epochs_of,
    own_rows,
    started,
    state_of,
)

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from singer_ray.config import Config, SearchConfig
    from singer_ray.nodes.prices import Price
    from singer_ray.training.timing import StepTimes

ROUND_TRIP, TRIAL_START = 0.2, 1.5
"""Seconds of Ray Tune an epoch (report and checkpoint) and a trial (its actor), measured on two cores."""
_PLAYS = 32
"""How often a scheduler's rule is played with random trials, to see what it leaves."""
_TRUST = 2.0
"""The rule's expectation counts as so many trials that were seen, and the timing as so many epochs."""


@dataclass(frozen=True)
class Estimate:
    """The expected course of a search.

    `times` is None where nothing was timed (`--status` on another machine): then there is no forecast, and `update`
    knows nothing before an epoch has ended.
    """

    search: SearchConfig
    epochs: int
    concurrent: int
    """Trials at a time."""
    gpus: float = 0.0
    """GPUs that all trials together hold."""
    times: StepTimes | None = None

    @classmethod
    def of(cls, config: Config, *, concurrent: int, gpus: float, times: StepTimes | None = None) -> Estimate:
        """As configured."""
        return cls(config.search, config.train.epochs, concurrent, gpus, times)

    def forecast(self, price: Price | None) -> str:
        """What a search that has not begun is expected to take: trials, time, and costs at most, in one line."""
        low, high = self.whole(price)
        trials = f"{self.search.trials} trial{'s' * (self.search.trials > 1)} x {self.epochs} epochs"
        span = duration(high) if duration(low) == duration(high) else _span(low, high)
        costs = [f"{self.gpus * high / HOUR:.2g} GPU-hours"] if self.gpus else []
        costs += [f"${price.per_hour * high / HOUR:.2f}"] if price else []
        bound = f", at most {', '.join(costs)}" if costs else ""
        source = f" ({price.source})" if price else ""
        cut = "; the search's limit ends it then" if high >= self._limit(price) else ""
        return f"about {trials}: {span} on {self.concurrent} at a time{bound}{source}{cut}"

    def whole(self, price: Price | None) -> tuple[float, float]:
        """Seconds of the whole search when the scheduler stops trials as expected, and when it stops none.

        The search's limits apply. Needs `times`.
        """
        assert self.times is not None, "time a few steps first"
        per_epoch, start, final = self._timed()
        again = self._repeats(start + self.epochs * per_epoch + final, 0)

        def seconds(lengths: Sequence[int]) -> float:
            trials = [start + n * per_epoch + (final if n == self.epochs else 0) for n in lengths]
            return min(self._limit(price), self._play([], trials) + again)

        expected = spread(survival(self.search, self.epochs), self.search.trials)
        return seconds(expected), seconds([self.epochs] * self.search.trials)

    def update(
        self,
        study: optuna.Study,
        repeats: optuna.Study | None = None,
        *,
        no_more_trials: bool = False,
        most: float = math.inf,
    ) -> float | None:
        """Seconds until the search ends, by what its trials took so far; None while nothing is known.

        Args:
            study: its rows, those that run included; `repeats` those of the repeated seeds, once there are some.
            no_more_trials: none is started any more (`Decision.action`).
            most: seconds until a limit ends the search (`Budget.seconds_left`).
        """
        rows = own_rows(study)
        paced = [(row.user_attrs[SECONDS], epochs_of(row)) for row in rows if row.user_attrs.get(SECONDS)]
        timed = self._timed() if self.times else None
        weight = _TRUST if timed else 0.0
        seen = sum(epochs for _, epochs in paced)
        if not seen and timed is None:
            return None
        guess, start, final = timed or (0.0, 0.0, 0.0)
        # The report of the last epoch is in what finished trials took: spread over all epochs, as they are too.
        guess += final / self.epochs
        per_epoch = (sum(seconds for seconds, _ in paced) + weight * guess) / (seen + weight)
        start = _overhead(rows, start)
        alive = self._survival(rows)
        running = [self._rest(alive, epochs_of(row)) * per_epoch for row in rows if state_of(row) == RUNNING]
        queued = [self._rest(alive, epochs_of(row), 0) * per_epoch for row in rows if state_of(row) == QUEUED]
        left = 0 if no_more_trials else max(0, self.search.trials - len(rows))
        new = [start + seconds for seconds in queued] + [start + n * per_epoch for n in spread(alive, left)]
        done = 0 if repeats is None else sum(row.state.is_finished() for row in own_rows(repeats))
        again = self._repeats(start + self.epochs * per_epoch, done)
        return min(most, self._play(running, new) + again)

    def _timed(self) -> tuple[float, float, float]:
        """Seconds of an epoch, of a trial's start, and of its last report beyond an epoch's."""
        assert self.times is not None
        return self.times.epoch + ROUND_TRIP, self.times.start + TRIAL_START, self.times.final

    def _play(self, running: Sequence[float], new: Sequence[float]) -> float:
        """Seconds until all are done, each new one starting when a place is free."""
        places = [*running, *[0.0] * max(0, self.concurrent - len(running))]
        heapq.heapify(places)
        for seconds in new:
            heapq.heapreplace(places, places[0] + seconds)
        return max(places)

    def _repeats(self, seconds: float, done: int) -> float:
        """Of training the leading trials with further seeds."""
        left = (self.search.repeats - 1) * min(self.search.repeat_top, self.search.trials) - done
        return math.ceil(max(0, left) / self.concurrent) * seconds

    def _survival(self, rows: Sequence[FrozenTrial]) -> list[float]:
        """For each epoch the share of trials that train it: as seen (Kaplan-Meier), leaning on the scheduler's rule.

        Trials that still run count for the epochs that they have behind them. Counting ended ones alone would take
        stopped trials for all trials, since those end first.
        """
        started = min(len(rows), self.search.trials - 1)
        past = survival(self.search, self.epochs, range(started))
        future = survival(self.search, self.epochs, range(started, self.search.trials))
        ends = [(epochs_of(row), row.state.name != RUNNING) for row in rows]
        alive, share = [], 1.0
        for epoch in range(self.epochs):
            before, after = (_passes(rule, epoch) for rule in (past, future))
            # A trial that still runs has been judged at its last epoch, but none before its first.
            judged = sum(n > epoch or (n == epoch and (ended or epoch > 0)) for n, ended in ends)
            passed = sum(n > epoch or (n == epoch and not ended and epoch > 0) for n, ended in ends)
            seen = (passed + _TRUST * before) / (judged + _TRUST)
            if 0 < before < 1 and 0 < after < 1 and seen < 1:
                # The rule tells how much harder later trials have it than those that were seen, as a ratio of odds.
                odds = seen / (1 - seen) * after / (1 - after) * (1 - before) / before
                seen = odds / (1 + odds)
            share *= seen
            alive.append(share)
        return alive

    def _rest(self, alive: Sequence[float], epoch: int, within: float = 0.5) -> float:
        """Epochs that a trial has before it after so many; it is taken to stand in the middle of the next one."""
        if epoch >= self.epochs:
            return 0.0
        return max(0.0, sum(alive[epoch:]) / alive[epoch] - within) if alive[epoch] else 1 - within

    def _limit(self, price: Price | None) -> float:
        """Seconds until a search that begins now has used up what it may use; inf without such a limit."""
        return Budget.of(self.search).seconds_left(
            Spending(money=0.0), gpus=self.gpus, dollars_per_hour=price.per_hour if price else None
        )


def survival(search: SearchConfig, epochs: int, trials: range | None = None) -> list[float]:
    """For each epoch (the first at place 0) the share of `trials` (by number; by default all) expected to train it.

    - none: all train all epochs.
    - asha: halving as Ray Tune does it, played with trials whose values keep their order from rung to rung. The first
      at a rung goes on for certain, and what comes later has stronger ones to beat.
    - hyperband: the same, with trials that take their first rung in turn from those that asha has.
    - median: half of the trials after the first startup_trials end at grace_epochs, the others never.
    """
    trials = range(search.trials) if trials is None else trials
    if search.scheduler == "none" or not trials:
        return [1.0] * epochs
    plays = _lengths(
        search.scheduler,
        search.trials,
        epochs,
        min(search.grace_epochs, epochs),
        search.reduction_factor,
        search.startup_trials,
    )
    ended = Counter(play[n] for play in plays for n in trials)
    gone = accumulate(ended[epoch] for epoch in range(epochs))
    return [1 - number / ended.total() for number in gone]


def spread(alive: Sequence[float], trials: int) -> list[int]:
    """The epochs of so many trials, by the quantiles of the lengths that `alive` implies, mixed."""
    golden = (math.sqrt(5) - 1) / 2
    order = sorted(range(trials), key=lambda n: n * golden % 1)
    lengths = [sum(share >= (n + 0.5) / trials - 1e-9 for share in alive) for n in range(trials)]
    return [lengths[n] for n in order]


@cache
def _lengths(scheduler: str, trials: int, epochs: int, grace: int, factor: int, startup: int) -> list[list[int]]:
    """The epochs of each trial in several plays of a search."""
    rungs = list(takewhile(lambda rung: rung < epochs, (grace * factor**k for k in count())))

    def play(seed: int) -> list[int]:
        values = Random(seed)
        seen: dict[tuple[int, int], list[float]] = {}
        lengths = []
        for number in range(trials):
            value = values.random()
            if scheduler == "median":
                lengths.append(grace if number >= startup and value < 0.5 else epochs)
                continue
            first = number % (len(rungs) + 1) if scheduler == "hyperband" else 0
            length = epochs
            for rung in rungs[first:]:
                if not _goes_on(value, seen.setdefault((first, rung), []), factor):
                    length = rung
                    break
            lengths.append(length)
        return lengths

    return [play(seed) for seed in range(_PLAYS)]


def _goes_on(value: float, earlier: list[float], factor: int) -> bool:
    """Whether a value is in the best part of a rung's earlier ones, sorted; joins them."""
    place = (1 - 1 / factor) * (len(earlier) - 1)
    below = math.floor(place)
    goes_on = not earlier or value >= earlier[below] + (place - below) * (
        earlier[min(below + 1, len(earlier) - 1)] - earlier[below]
    )
    insort(earlier, value)
    return goes_on


def _passes(rule: Sequence[float], epoch: int) -> float:
    """The share of trials that go on after so many epochs, of those that trained them."""
    return rule[epoch] / rule[epoch - 1] if epoch and rule[epoch] else 1.0


def _overhead(rows: Sequence[FrozenTrial], guess: float) -> float:
    """Seconds that a trial takes beside its epochs: the median of what ended ones took; `guess` before any has."""
    seconds = [
        (row.datetime_complete - begin).total_seconds() - row.user_attrs[SECONDS] - _waited(row)
        for row in rows
        if row.state.name == COMPLETE and SECONDS in row.user_attrs and RESUMED not in row.user_attrs
        if row.datetime_complete and (begin := started(row))
    ]
    return max(0.0, median(seconds)) if seconds else guess


def _waited(row: FrozenTrial) -> float:
    """Seconds after `started` in which a row had no host: none, where that is known at all."""
    return 0.0 if STARTED in row.user_attrs else float(row.user_attrs.get(WAITED, 0.0))


def _span(low: float, high: float) -> str:
    (one, unit), (other, other_unit) = duration(low).split(), duration(high).split()
    return f"{one}-{other} {unit}" if unit == other_unit else f"{one} {unit} - {other} {other_unit}"
