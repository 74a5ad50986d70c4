"""When a search ends: what it may use is used up, the target is reached, or nothing improves any more."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from optuna._hypervolume import compute_hypervolume

from singer_ray.errors import UserError
from singer_ray.metrics import MAX
from singer_ray.search.strategy.cost import HOUR, Meter, Spending
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.schema import COMPLETE, ENDED, own_rows

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from singer_ray.config import SearchConfig

Action = Literal["go_on", "no_more_trials", "stop"]
GO_ON: Action = "go_on"
NO_MORE_TRIALS: Action = "no_more_trials"
"""Running trials may finish, but no other is started."""
STOP: Action = "stop"
"""Everything ends now."""
_FEWEST = 5
"""Finished trials, at least, that determine the reference point of a hypervolume."""
_MARGIN = 0.1
"""How far the reference point lies behind the worst values, as a share of their spread: a front's ends count too."""


@dataclass(frozen=True)
class Decision:
    """What a search does next, and why."""

    action: Action = GO_ON
    reason: str | None = None
    """In words, for the screen and search.json; None while it goes on."""


@dataclass(frozen=True)
class Budget:
    """The limits of a search; 0 and None are no limit."""

    trials: int
    time: float = 0.0
    """Seconds."""
    gpu_hours: float = 0.0
    money: float = 0.0
    target: float | None = None
    plateau_trials: int = 0
    plateau_gain: float = 0.0

    @classmethod
    def of(cls, search: SearchConfig) -> Budget:
        """As configured."""
        return cls(
            search.trials,
            search.time_budget,
            search.gpu_hours,
            search.money,
            search.target,
            search.plateau_trials,
            search.plateau_gain,
        )

    @property
    def of_repeats(self) -> Budget:
        """The limits that apply to repeats too: time, GPU-hours, money. Target and plateau only end the main trials."""
        return replace(self, trials=0, target=None, plateau_trials=0)

    def require_gpus(self, gpus: float) -> None:
        """Raises UserError when GPU-hours are limited and no trial holds a GPU: the limit would have no effect."""
        if self.gpu_hours and not gpus:
            raise UserError(
                f"search.gpu_hours {self.gpu_hours:g} has no effect: no trial holds a GPU here. Use --time-budget "
                "SECONDS, connect to a cluster with GPUs, or raise search.gpus_per_trial."
            )

    def check(self, study: optuna.Study, objectives: Objectives, spending: Spending) -> Decision:
        """Whether the search goes on. Reads only the rows of trials that it started itself."""
        reached = self._spent(spending)
        if reached:
            return Decision(STOP, reached)
        rows = own_rows(study)
        done = sorted(
            (row for row in rows if row.state.name == COMPLETE),
            key=lambda row: (row.datetime_complete.timestamp() if row.datetime_complete else math.inf, row.number),
        )
        costs = np.array([objectives.costs(row.values or []) for row in done]).reshape(len(done), len(objectives.names))
        reached = self._on_target(done, costs, objectives)
        if reached:
            return Decision(STOP, reached)
        level = self._plateau(costs)
        if level:
            return Decision(NO_MORE_TRIALS, level)
        if self.trials and len(rows) >= self.trials:
            return Decision(NO_MORE_TRIALS, f"all {self.trials} trials were started")
        return Decision()

    def seconds_left(self, spending: Spending, *, gpus: float, dollars_per_hour: float | None) -> float:
        """Seconds until time, GPU-hours or money run out, if what is held stays the same; inf without such a limit."""
        left = [math.inf]
        if self.time:
            left.append(self.time - spending.seconds)
        if self.gpu_hours and gpus:
            left.append((self.gpu_hours - spending.gpu_hours) / gpus * HOUR)
        if self.money and dollars_per_hour and spending.money is not None:
            left.append((self.money - spending.money) / dollars_per_hour * HOUR)
        return max(0.0, min(left))

    def _spent(self, spending: Spending) -> str | None:
        if self.time and spending.seconds >= self.time:
            return f"stopped: {spending.seconds:.0f} s are used up, search.time_budget is {self.time:g} s"
        if self.gpu_hours and spending.gpu_hours >= self.gpu_hours:
            return f"stopped: {spending.gpu_hours:.3g} GPU-hours are used up, search.gpu_hours is {self.gpu_hours:g}"
        if self.money and spending.money is not None and spending.money >= self.money:
            return f"stopped: ${spending.money:.2f} are spent, search.money is ${self.money:g}"
        return None

    def _on_target(self, done: Sequence[FrozenTrial], costs: np.ndarray, objectives: Objectives) -> str | None:
        if self.target is None or not done:
            return None
        best = int(costs[:, 0].argmin())
        (goal, *_) = objectives.costs([self.target] * len(objectives.names))
        if costs[best, 0] > goal:
            return None
        value = -costs[best, 0] if objectives.modes[0] == MAX else costs[best, 0]
        return (
            f"stopped: trial {done[best].number:03d} has {objectives.first} {value:.4g}, "
            f"search.target is {self.target:g}"
        )

    def _plateau(self, costs: np.ndarray) -> str | None:
        window = self.plateau_trials
        if not window or len(costs) <= window:
            return None
        if costs.shape[1] == 1:
            what, of_itself, gain = "best value", "", float(costs[:-window].min() - costs.min())
        elif len(costs) < _FEWEST:
            return None
        else:
            reference = reference_point(costs[: max(window, _FEWEST)])
            now, before = (hypervolume(points, reference) for points in (costs, costs[:-window]))
            # A ratio of hypervolumes does not depend on the objectives' units.
            what, of_itself, gain = "hypervolume", " of itself", (now - before) / now
        if gain > self.plateau_gain:
            return None
        gained = f"{gain:.3g}{of_itself}" if gain > 0 else "nothing"
        return (
            f"stopped: the {what} gained {gained} over the last {window} finished trials, not more than "
            f"search.plateau_gain {self.plateau_gain:g}"
        )


class Limits:
    """Whether a search goes on, decided anew when a second has passed or a trial has ended."""

    def __init__(self, budget: Budget, study: optuna.Study, objectives: Objectives, meter: Meter) -> None:
        self.budget, self.study, self.objectives, self.meter = budget, study, objectives, meter
        self.decision = Decision()
        self.seen = (0.0, -1)

    def check(self) -> Decision:
        """What the search does next. A search that has been stopped stays so."""
        ended = len(own_rows(self.study, ENDED))
        now = time.monotonic()
        if self.decision.action == GO_ON and (ended != self.seen[1] or now - self.seen[0] > 1.0):
            self.seen = (now, ended)
            self.decision = self.budget.check(self.study, self.objectives, self.meter.tick())
        elif self.decision.action == NO_MORE_TRIALS and now - self.seen[0] > 1.0:
            self.seen = (now, ended)
            decision = self.budget.check(self.study, self.objectives, self.meter.tick())
            self.decision = decision if decision.action == STOP else self.decision
        return self.decision


def reference_point(costs: np.ndarray) -> np.ndarray:
    """A point behind all of `costs` [points, objectives], from which hypervolumes are measured.

    Each objective's worst value plus a tenth of its spread. It is taken from the first finished trials, so it stays the
    same as the search goes on; later trials that are worse in any objective add no volume.
    """
    worst, spread = costs.max(0), np.ptp(costs, axis=0)
    # An objective that has not varied yet still needs a depth, or all volumes are 0.
    depth = np.where(spread > 0, spread, np.where(worst != 0, np.abs(worst), 1.0))
    point: np.ndarray = worst + _MARGIN * depth
    return point


def hypervolume(costs: np.ndarray, reference: np.ndarray) -> float:
    """Volume between `costs` [points, objectives] (less is better) and the reference point [objectives]; exact.

    Points that are behind the reference point anywhere add nothing. Optuna's own function, of a private module: its
    public API has none. With n points it costs n log n for two objectives, n^2 for three, and more than n^3 beyond.
    """
    inside = costs[(costs < reference).all(1)]
    return float(compute_hypervolume(inside, reference)) if len(inside) else 0.0
