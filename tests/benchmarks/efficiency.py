"""How many epochs a search needs, on recorded curves: random search against early stopping and TPE. No training.

    python -m tests.benchmarks.efficiency          (about 10 minutes on one core)

Four workers in virtual time, one epoch a unit. Rows are asked, reported, stopped and told by the product's ledger,
samplers and pruners over an in-memory study; a suggested point takes the curve of the nearest setting of curves.json
(in the unit cube, logarithmic where the space is), and fails where that one failed. With a seed's random search over
TRIALS full trials comes a target, its final best; every other search has the same number of epochs to reach it with a
trial that ran to the end. "random, another seed" is the control: what chance alone reaches. "asked ahead" has one row
more than workers asked at any time, as a search has that readies the next trial while others train. Raw figures:
efficiency.json.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import math
import statistics
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import FloatDistribution, IntDistribution

from singer_ray.config import Config, load_preset
from singer_ray.search.ledger import Assignment, Ledger
from singer_ray.search.objectives import Objectives
from singer_ray.search.samplers import make_sampler
from singer_ray.search.scheduler import make_pruner
from singer_ray.search.space import SearchSpace, load_space
from singer_ray.search.study import FAULT, create_study
from tests.benchmarks.children import write_raw

MODULE = "tests.benchmarks.efficiency"
RAW, CURVES = Path(__file__).with_name("efficiency.json"), Path(__file__).with_name("curves.json")
SEEDS, TRIALS, WORKERS = 50, 48, 4
ANOTHER = 1000
"""Added to the seed of the control."""


class Recorded:
    """The recorded curves, each standing for the points that are nearest to it."""

    def __init__(self, path: Path = CURVES) -> None:
        raw = json.loads(path.read_text(encoding="utf-8"))["metrics"]
        self.metric: str = raw["metric"]
        self.config: Config = load_preset("demo").override(raw["settings"])
        self.space: SearchSpace = load_space("singer", self.config)
        self.curves: list[dict[str, Any]] = raw["curves"]
        self.places = np.array([self._place(curve["parameters"]) for curve in self.curves])

    def nearest(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The curve of the nearest recorded setting."""
        distance = ((self.places - self._place(parameters)) ** 2).sum(axis=1)
        return self.curves[int(distance.argmin())]

    def _place(self, parameters: Mapping[str, Any]) -> np.ndarray:
        """A point in the unit cube."""
        place = []
        for name, distribution in self.space.distributions.items():
            assert isinstance(distribution, FloatDistribution | IntDistribution)
            scale = math.log if distribution.log else float
            low, high = scale(distribution.low), scale(distribution.high)
            place.append((scale(parameters[name]) - low) / (high - low))
        return np.array(place)


@dataclass(frozen=True)
class Searched:
    """What a simulated search found, and when."""

    found: list[tuple[int, float]]
    """Epochs that all workers had trained, and the value, at the end of each trial that ran to the end."""
    trials: int
    """Trials that began."""

    def best(self, within: float = math.inf) -> float:
        """The best value within so many epochs."""
        return max((value for spent, value in self.found if spent <= within), default=-math.inf)

    def epochs_to(self, target: float) -> int | None:
        """Epochs until the target was reached; None when it was not."""
        return next((spent for spent, value in self.found if value >= target), None)


def search(recorded: Recorded, config: Config, budget: int, *, ahead: int = 0) -> Searched:
    """Searches until `budget` epochs have been trained."""
    objectives = Objectives.of([recorded.metric], None, [recorded.metric])
    study = create_study(optuna.storages.InMemoryStorage(), "simulated", objectives)
    study.sampler = make_sampler(config, recorded.space, objectives)
    epochs = config.train.epochs
    ledger = Ledger(
        study, recorded.space, objectives, epochs=epochs, trials=budget, folder="", pruner=make_pruner(config)
    )
    waiting: deque[Assignment] = deque()
    running: list[tuple[int, int, int, Assignment, dict[str, Any]]] = []
    order, trials, spent, found = itertools.count(), 0, 0, []

    def asked() -> Assignment:
        row = ledger.ask("")
        assert row is not None
        return row

    def begin(now: int) -> None:
        nonlocal trials
        while len(waiting) <= ahead:
            waiting.append(asked())
        row, trials = waiting.popleft(), trials + 1
        heapq.heappush(running, (now + 1, next(order), 1, row, recorded.nearest(row.parameters)))

    for _ in range(WORKERS):
        begin(0)
    while spent < budget:
        now, _, epoch, row, curve = heapq.heappop(running)
        spent += 1
        if curve["failed"] == epoch:
            ledger.end(row.number, {FAULT: "diverged"})
            begin(now)
            continue
        value = curve["values"][epoch - 1]
        ledger.report(row.number, {"epoch": epoch, recorded.metric: value})
        if epoch == epochs:
            found.append((spent, value))
        if epoch == epochs or ledger.should_stop(row.number):
            ledger.end(row.number)
            begin(now)
        else:
            heapq.heappush(running, (now + 1, next(order), epoch + 1, row, curve))
    return Searched(found, trials)


@dataclass(frozen=True)
class Contender:
    """One way to search."""

    sampler: str
    scheduler: str
    ahead: int = 0
    seed: int = 0
    """Added to the seed."""


CONTENDERS = {
    "random": Contender("random", "none"),
    "random, another seed": Contender("random", "none", seed=ANOTHER),
    "random + asha": Contender("random", "asha"),
    "tpe": Contender("tpe", "none"),
    "tpe + asha": Contender("tpe", "asha"),
    "tpe + asha, asked ahead": Contender("tpe", "asha", ahead=1),
    "tpe + hyperband": Contender("tpe", "hyperband"),
    "tpe + median": Contender("tpe", "median"),
}


def one_seed(recorded: Recorded, seed: int) -> dict[str, dict[str, Any]]:
    """By way to search: epochs to random search's final best, the best after each quarter of the budget, and trials."""
    budget = TRIALS * recorded.config.train.epochs
    results: dict[str, dict[str, Any]] = {}
    target = math.nan
    for name, way in CONTENDERS.items():
        config = recorded.config.override(
            {"search.sampler": way.sampler, "search.scheduler": way.scheduler, "seed": seed + way.seed}
        )
        done = search(recorded, config, budget, ahead=way.ahead)
        if name == "random":
            target = done.best()
        results[name] = {
            "epochs_to_target": done.epochs_to(target),
            "best_after": [round(done.best(budget * part // 4), 5) for part in (1, 2, 3, 4)],
            "trials": done.trials,
        }
    return results


def summary(seeds: Sequence[Mapping[str, Mapping[str, Any]]], budget: int) -> dict[str, dict[str, float]]:
    """Over seeds: how often the target is reached, quartiles of the epochs to it (budget where it is not), bests."""
    found = {}
    for name in CONTENDERS:
        rows = [seed[name] for seed in seeds]
        needed = [row["epochs_to_target"] for row in rows]
        low, median, high = statistics.quantiles([budget if n is None else n for n in needed], n=4)
        found[name] = {
            "reached": sum(n is not None for n in needed) / len(rows),
            "epochs_low_quartile": low,
            "epochs_median": median,
            "epochs_high_quartile": high,
            "best_after_quarter": statistics.mean(row["best_after"][0] for row in rows),
            "best_after_half": statistics.mean(row["best_after"][1] for row in rows),
            "best": statistics.mean(row["best_after"][3] for row in rows),
            "trials": statistics.mean(row["trials"] for row in rows),
        }
    return found


def main() -> int:
    """Simulates the seeds, writes the raw figures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--curves", type=Path, default=CURVES)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    recorded = Recorded(given.curves)
    budget, begin, seeds = TRIALS * recorded.config.train.epochs, time.perf_counter(), []
    for seed in range(given.seeds):
        seeds.append(one_seed(recorded, seed))
        if (seed + 1) % 5 == 0:
            print(f"{seed + 1} of {given.seeds} seeds, {time.perf_counter() - begin:.0f} s", flush=True)
    found = summary(seeds, budget)
    ends = [curve["values"][-1] for curve in recorded.curves if curve["failed"] is None]
    write_raw(RAW, MODULE, {"budget_epochs": budget, "workers": WORKERS, "summary": found, "seeds": seeds})
    print(f"{len(recorded.curves)} curves, ends {min(ends):.3f} to {max(ends):.3f}; budget {budget} epochs")
    columns = list(next(iter(found.values())))
    print(f"{'':24}" + "".join(f"{column:>22}" for column in columns))
    for name, row in found.items():
        print(f"{name:24}" + "".join(f"{row[column]:22.3f}" for column in columns))
    return 0


if __name__ == "__main__":
    sys.exit(main())
