"""What a search may use, what it has used, and when it therefore ends."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from singer_ray.errors import UserError
from singer_ray.metrics import MAX
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.schema import COMPLETE, ENDED, own_rows

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from singer_ray.config import SearchConfig
    from singer_ray.nodes.prices import Price

Action = Literal["go_on", "no_more_trials", "stop"]
GO_ON: Action = "go_on"
NO_MORE_TRIALS: Action = "no_more_trials"
"""Trials that run may finish, none is started."""
STOP: Action = "stop"
"""Everything ends now."""
HOUR = 3600.0
_FEWEST = 5
"""Finished trials that the reference point of a hypervolume is taken from, at least."""
_MARGIN = 0.1
"""How far behind the worst values it lies, as a share of their spread, so that the ends of a front count too."""


@dataclass(frozen=True)
class Spending:
    """What a search has used, over all its sessions."""

    seconds: float = 0.0
    gpu_hours: float = 0.0
    money: float | None = None
    """US dollars; None when the price of some session's nodes is not known."""

    @classmethod
    def of(cls, sessions: Sequence[Mapping[str, Any]]) -> Spending:
        """Of the records in search.json: `begin` and `end` (unix s), `gpu_hours`, `money`."""
        money = [session["money"] for session in sessions]
        return cls(
            sum(session["end"] - session["begin"] for session in sessions),
            sum(session["gpu_hours"] for session in sessions),
            None if not money or None in money else sum(money),
        )

    def __str__(self) -> str:
        parts = [duration(self.seconds)]
        parts += [f"{self.gpu_hours:.3g} GPU-hours"] if self.gpu_hours else []
        parts += [f"${self.money:.2f}"] if self.money is not None else []
        return ", ".join(parts)


class Meter:
    """Measures the session that runs: call `tick` whenever something happens, and write `record` to search.json.

    Threads may share it.

    Args:
        sessions: the records of earlier sessions.
        concurrent: trials at a time, until `hold` says otherwise.
        gpus: GPUs that all trials together hold (concurrent x workers x gpus_per_trial), likewise.
        price: gives the price of the nodes that are alive now. While it gives None, the last known price goes on: a
            node whose price is not known must not stop the count of the others.
        clock: unix seconds.
    """

    def __init__(
        self,
        sessions: Sequence[Mapping[str, Any]],
        *,
        concurrent: int,
        gpus: float,
        price: Callable[[], Price | None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.earlier = [dict(session) for session in sessions]
        self._price, self._clock = price, clock
        self._counting = threading.Lock()
        self.price = price()
        now = clock()
        self.session: dict[str, Any] = {
            "begin": now,
            "end": now,
            "nodes": self.price.nodes if self.price else None,
            "concurrent": concurrent,
            "gpus": gpus,
            "gpu_hours": 0.0,
            "money": None if self.price is None else 0.0,
        }

    def tick(self) -> Spending:
        """Adds the time since the last tick, by what was held then; returns all that was spent so far."""
        found = self._price()  # asks the cluster, which may take its time
        with self._counting:
            session, now = self.session, max(self._clock(), self.session["end"])
            hours = (now - session["end"]) / HOUR
            session["end"] = now
            session["gpu_hours"] += session["gpus"] * hours
            if self.price is not None:
                session["money"] += self.price.per_hour * hours
            if found is not None:
                if self.price is None:  # known only now: what was before is charged alike
                    session["money"] = found.per_hour * (now - session["begin"]) / HOUR
                self.price, session["nodes"] = found, found.nodes
            return self.spent

    def hold(self, *, concurrent: int, gpus: float) -> None:
        """From now on so many trials run at a time, and hold so many GPUs."""
        self.tick()
        with self._counting:
            self.session |= {"concurrent": concurrent, "gpus": gpus}

    @property
    def spent(self) -> Spending:
        """As of the last tick."""
        return Spending.of([*self.earlier, self.session])

    def record(self) -> dict[str, Any]:
        """The part of search.json that tells of spending."""
        spent = self.spent
        return {
            "sessions": [*self.earlier, dict(self.session)],
            "seconds": round(spent.seconds, 2),
            "gpu_hours": round(spent.gpu_hours, 4),
            "money": None if spent.money is None else round(spent.money, 4),
            "price_per_node_hour": None if self.price is None else round(self.price.per_node_hour, 4),
        }


@dataclass(frozen=True)
class Verdict:
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
        """The limits that hold for the repeats too: what may be used. Target and plateau end the search before them."""
        return replace(self, trials=0, target=None, plateau_trials=0)

    def require_gpus(self, gpus: float) -> None:
        """Raises UserError when GPU-hours are limited and no trial holds a GPU: the limit would never bite."""
        if self.gpu_hours and not gpus:
            raise UserError(
                f"search.gpu_hours {self.gpu_hours:g} has no effect: no trial holds a GPU here. Use --time-budget "
                "SECONDS, connect to a cluster with GPUs, or raise search.gpus_per_trial."
            )

    def check(self, study: optuna.Study, objectives: Objectives, spending: Spending) -> Verdict:
        """Whether the search goes on; at every finished trial, and now and then between. Reads only rows of its own."""
        reached = self._spent(spending)
        if reached:
            return Verdict(STOP, reached)
        rows = own_rows(study)
        done = sorted(
            (row for row in rows if row.state.name == COMPLETE),
            key=lambda row: (row.datetime_complete.timestamp() if row.datetime_complete else math.inf, row.number),
        )
        costs = np.array([objectives.costs(row.values or []) for row in done]).reshape(len(done), len(objectives.names))
        reached = self._on_target(done, costs, objectives)
        if reached:
            return Verdict(STOP, reached)
        level = self._plateau(costs)
        if level:
            return Verdict(NO_MORE_TRIALS, level)
        if self.trials and len(rows) >= self.trials:
            return Verdict(NO_MORE_TRIALS, f"all {self.trials} trials were started")
        return Verdict()

    def seconds_left(self, spending: Spending, *, gpus: float, dollars_per_hour: float | None) -> float:
        """Until time, GPU-hours or money run out, as long as so much is held; inf without such a limit."""
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
            now, before = (hypervolume(found, reference) for found in (costs, costs[:-window]))
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
    """The budget's verdict, looked up again when a second has passed or a trial has ended."""

    def __init__(self, budget: Budget, study: optuna.Study, objectives: Objectives, meter: Meter) -> None:
        self.budget, self.study, self.objectives, self.meter = budget, study, objectives, meter
        self.verdict = Verdict()
        self.seen = (0.0, -1)

    def check(self) -> Verdict:
        """What the search does next. A search that has been stopped stays so."""
        ended = len(own_rows(self.study, ENDED))
        now = time.monotonic()
        if self.verdict.action == GO_ON and (ended != self.seen[1] or now - self.seen[0] > 1.0):
            self.seen = (now, ended)
            self.verdict = self.budget.check(self.study, self.objectives, self.meter.tick())
        elif self.verdict.action == NO_MORE_TRIALS and now - self.seen[0] > 1.0:
            self.seen = (now, ended)
            found = self.budget.check(self.study, self.objectives, self.meter.tick())
            self.verdict = found if found.action == STOP else self.verdict
        return self.verdict


def reference_point(costs: np.ndarray) -> np.ndarray:
    """A point behind all of `costs` [points, objectives], from which hypervolumes are measured.

    Each objective's worst value and a tenth of its spread more. Taken from the first finished trials it stays the same
    however a search goes on; later trials that are worse there add nothing.
    """
    worst, spread = costs.max(0), np.ptp(costs, axis=0)
    # An objective that has not varied yet still needs a depth, or all volumes are 0.
    depth = np.where(spread > 0, spread, np.where(worst != 0, np.abs(worst), 1.0))
    found: np.ndarray = worst + _MARGIN * depth
    return found


def hypervolume(costs: np.ndarray, reference: np.ndarray) -> float:
    """Volume between `costs` [points, objectives] (less is better) and the reference point [objectives]; exact.

    Points that are behind the reference point anywhere add nothing. Costs n log n for two objectives, n^2 for three; of
    more, the last is swept, and each slice is a hypervolume of the others.
    """
    inside = costs[(costs < reference).all(1)]
    if not len(inside):
        return 0.0
    if inside.shape[1] == 1:
        return float(reference[0] - inside.min())
    if inside.shape[1] == 2:
        ordered = inside[np.lexsort((inside[:, 1], inside[:, 0]))]
        lowest = np.minimum.accumulate(ordered[:, 1])
        widths = np.diff(np.append(ordered[:, 0], reference[0]))
        return float(widths @ (reference[1] - lowest))
    inside = _undominated(inside)
    if inside.shape[1] == 3:
        # The lowest third value at each pair of the points' first and second values; between them it stays.
        edges, places = zip(*(np.unique(inside[:, k], return_inverse=True) for k in (0, 1)))
        lowest = np.full([len(edge) for edge in edges], reference[2])
        np.minimum.at(lowest, places, inside[:, 2])
        lowest = np.minimum.accumulate(np.minimum.accumulate(lowest, axis=0), axis=1)
        wide, high = (np.diff(np.append(edge, end)) for edge, end in zip(edges, reference))
        return float(wide @ (reference[2] - lowest) @ high)
    ordered = inside[inside[:, -1].argsort(kind="stable")]
    depths = np.diff(np.append(ordered[:, -1], reference[-1]))
    slices = (hypervolume(ordered[: n + 1, :-1], reference[:-1]) for n in range(len(ordered)))
    return float(sum(depth * area for depth, area in zip(depths, slices) if depth))


def duration(seconds: float) -> str:
    """`40 s`, `8 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / HOUR:.1f} h"


def _undominated(costs: np.ndarray) -> np.ndarray:
    points = np.unique(costs, axis=0)
    found: np.ndarray = points[(points[:, None] <= points).all(-1).sum(0) == 1]  # nothing but itself
    return found
