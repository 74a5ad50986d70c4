"""How many epochs a search needs, on recorded curves: random search against early stopping and TPE. No training.

    python -m tests.benchmarks.efficiency          (about 3 minutes on one core)

Four workers in virtual time, one epoch a unit. Rows are asked, reported, stopped and told by the product's ledger,
samplers and pruners over an in-memory study; a suggested point takes a curve from curves.json in two ways, `nearest`
and `smooth` (see `landscape`). Random search over TRIALS full trials sets each seed's target: its final best among
trials that ran to the end. Every other search starts from another seed, so that it does not draw the same points, and
has as many epochs to get there. "random again" is the control: what luck reaches. "asked ahead" has one row more than
workers asked at any time, as the product has. A best is the largest of noisy values; its worth is its value without
noise. Raw figures: efficiency.json.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from singer_ray.config import Config
from singer_ray.search.driver.ask_tell import AskTell, StudySpec
from singer_ray.search.strategy.pruners import make_pruner
from singer_ray.search.strategy.samplers import make_sampler
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.opening import create_study
from singer_ray.search.study.running import Assignment
from singer_ray.search.study.schema import FAULT
from tests.benchmarks.children import write_raw
from tests.benchmarks.landscape import CURVES, Curve, Recorded

MODULE = "tests.benchmarks.efficiency"
RAW = Path(__file__).with_name("efficiency.json")
SEEDS, TRIALS, WORKERS = 50, 48, 4
ANOTHER = 1000
"""Added to the seed of all but the search that sets the target."""


@dataclass(frozen=True)
class Searched:
    """What a simulated search found, and when."""

    ended: list[tuple[int, Curve]]
    """Epochs that all workers had trained at the end of each trial that ran to the end, and its curve."""
    trials: int
    """Trials that began."""

    def best(self, within: float = math.inf) -> Curve | None:
        """The best of the trials that had ended after so many epochs."""
        ended = [curve for spent, curve in self.ended if spent <= within]
        return max(ended, key=lambda curve: curve.values[-1], default=None)

    def epochs_to(self, target: float) -> int | None:
        """Epochs until a trial ended with the target; None when none did."""
        return next((spent for spent, curve in self.ended if curve.values[-1] >= target), None)


Landscape = Callable[[Mapping[str, Any], np.random.Generator], Curve]


def search(recorded: Recorded, landscape: Landscape, config: Config, budget: int, *, ahead: int = 0) -> Searched:
    """Searches until `budget` epochs have been trained."""
    objectives = Objectives.of([recorded.metric], None, [recorded.metric])
    study = create_study(optuna.storages.InMemoryStorage(), "simulated", objectives)
    epochs = config.train.epochs
    ask_tell = AskTell(
        study,
        StudySpec(recorded.space, objectives, epochs, budget, folder=""),
        pruner=make_pruner(config),
        sampler_of=lambda number: make_sampler(config, recorded.space, objectives, number=number),
    )
    waiting: deque[Assignment] = deque()
    running: list[tuple[int, int, int, Assignment, Curve]] = []
    order, trials, spent = itertools.count(), 0, 0
    ended: list[tuple[int, Curve]] = []

    def asked() -> Assignment:
        row = ask_tell.ask("")
        assert row is not None
        return row

    def begin(now: int) -> None:
        nonlocal trials
        while len(waiting) <= ahead:
            waiting.append(asked())
        row, trials = waiting.popleft(), trials + 1
        curve = landscape(row.parameters, np.random.default_rng([config.seed, trials]))
        heapq.heappush(running, (now + 1, next(order), 1, row, curve))

    for _ in range(WORKERS):
        begin(0)
    while spent < budget:
        now, _, epoch, row, curve = heapq.heappop(running)
        spent += 1
        if curve.failed == epoch:
            ask_tell.end(row.number, {FAULT: "diverged"})
            begin(now)
            continue
        ask_tell.report(row.number, {"epoch": epoch, recorded.metric: curve.values[epoch - 1]})
        if epoch == epochs:
            ended.append((spent, curve))
        if epoch == epochs or ask_tell.should_stop(row.number):
            ask_tell.end(row.number)
            begin(now)
        else:
            heapq.heappush(running, (now + 1, next(order), epoch + 1, row, curve))
    return Searched(ended, trials)


@dataclass(frozen=True)
class Contender:
    """One way to search."""

    sampler: str
    scheduler: str
    ahead: int = 0
    seed: int = ANOTHER
    """Added to the seed."""


CONTENDERS = {
    "random": Contender("random", "none", seed=0),
    "random again": Contender("random", "none"),
    "random + asha": Contender("random", "asha"),
    "tpe": Contender("tpe", "none"),
    "tpe + asha": Contender("tpe", "asha"),
    "tpe + asha, asked ahead": Contender("tpe", "asha", ahead=1),
    "tpe + hyperband": Contender("tpe", "hyperband"),
    "tpe + median": Contender("tpe", "median"),
}


def one_seed(recorded: Recorded, landscape: Landscape, seed: int) -> dict[str, dict[str, Any]]:
    """By way to search: epochs to random search's best, the best after quarters of the budget, its worth, trials."""
    budget = TRIALS * recorded.config.train.epochs
    results: dict[str, dict[str, Any]] = {}
    target = math.nan
    for name, way in CONTENDERS.items():
        config = recorded.config.override(
            {"search.sampler": way.sampler, "search.scheduler": way.scheduler, "seed": seed + way.seed}
        )
        done = search(recorded, landscape, config, budget, ahead=way.ahead)
        bests = [done.best(budget * part // 4) for part in (1, 2, 3, 4)]
        last = bests[-1]
        assert last is not None, f"{name} finished no trial"
        if name == "random":
            target = last.values[-1]
        results[name] = {
            "epochs_to_target": done.epochs_to(target),
            "best": [None if best is None else round(best.values[-1], 5) for best in bests],
            "worth": round(last.quality, 5),
            "trials": done.trials,
        }
    return results


def summary(seeds: Sequence[Mapping[str, Mapping[str, Any]]], budget: int) -> dict[str, dict[str, float]]:
    """Over seeds: how often the target is reached, quartiles of the epochs to it (budget where it is not), bests."""
    found = {}
    for name in CONTENDERS:
        rows = [seed[name] for seed in seeds]
        needed = [row["epochs_to_target"] for row in rows]
        low, median, high = statistics.quantiles([budget if n is None else n for n in needed], n=4, method="inclusive")
        found[name] = {
            "reached": sum(n is not None for n in needed) / len(rows),
            "epochs_low_quartile": low,
            "epochs_median": median,
            "epochs_high_quartile": high,
            "best_after_quarter": statistics.mean(row["best"][0] for row in rows if row["best"][0] is not None),
            "best_after_half": statistics.mean(row["best"][1] for row in rows),
            "best": statistics.mean(row["best"][3] for row in rows),
            "worth": statistics.mean(row["worth"] for row in rows),
            "trials": statistics.mean(row["trials"] for row in rows),
        }
    return found


SHOWN = {
    "random again": "random, another seed (luck)",
    "random + asha": "random + ASHA",
    "tpe": "TPE",
    "tpe + asha, asked ahead": "**TPE + ASHA**, as `tune` runs it",
}
"""The contenders in README."""


def as_markdown(raw: Mapping[str, Any]) -> str:
    """README's table: median and quartiles of the epochs, and how often the target is reached."""

    def cell(row: Mapping[str, float]) -> str:
        low, high = row["epochs_low_quartile"], row["epochs_high_quartile"]
        return f"{row['epochs_median']:.0f} ({low:.0f}-{high:.0f}), {row['reached']:.0%}"

    lines = [
        f"| {words} | {cell(raw['smooth']['summary'][name])} | {cell(raw['nearest']['summary'][name])} |"
        for name, words in SHOWN.items()
    ]
    return "\n".join(lines)


def main() -> int:
    """Simulates the seeds, writes the raw figures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--curves", type=Path, default=CURVES)
    parser.add_argument("--raw", type=Path, default=RAW)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    recorded = Recorded(given.curves)
    budget, begin = TRIALS * recorded.config.train.epochs, time.perf_counter()
    ends = [curve.values[-1] for curve in recorded.curves if curve.failed is None]
    print(f"{len(recorded.curves)} curves, ends {min(ends):.3f} to {max(ends):.3f}; budget {budget} epochs")
    print("the smooth landscape explains, by epoch:", *(f"{share:.2f}" for share in recorded.explained()))
    raw: dict[str, Any] = {"budget_epochs": budget, "workers": WORKERS, "explained": recorded.explained()}
    for name, landscape in (("nearest", recorded.nearest), ("smooth", recorded.smooth)):
        seeds = []
        for seed in range(given.seeds):
            seeds.append(one_seed(recorded, landscape, seed))
            if (seed + 1) % 10 == 0:
                print(f"{name}: {seed + 1} of {given.seeds} seeds, {time.perf_counter() - begin:.0f} s", flush=True)
        raw[name] = {"summary": summary(seeds, budget), "seeds": seeds}
        columns = list(raw[name]["summary"]["random"])
        print(f"{name:24}" + "".join(f"{column:>22}" for column in columns))
        for way, row in raw[name]["summary"].items():
            print(f"{way:24}" + "".join(f"{row[column]:22.3f}" for column in columns))
    write_raw(given.raw, MODULE, raw)
    print(as_markdown(raw))
    return 0


if __name__ == "__main__":
    sys.exit(main())
