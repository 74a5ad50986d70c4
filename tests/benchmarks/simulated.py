"""A search of 500 trials, 16 at a time, through the product's driver and Ray Tune, with recorded curves for training.

    python -m tests.benchmarks.simulated --out runs/simulated          (about 2 minutes on 2 idle cores)

The search is `run_search`: journal, sampler, pruner, searcher, scheduler, registry, limits, progress, leaderboard. Only
two things are replaced: trials read the curve of the nearest setting of curves.json, without torch and without hosts,
at EPOCH_SECONDS an epoch; and CONCURRENT actors serve all trials, since what starting one costs is another benchmark's
question (`overhead`; `--fresh` starts one for each). Apart from that: seconds a suggestion by number of rows, and what
our searcher adds to Optuna's own time for a trial, told in turns on two journals. Raw figures: simulated.json. Bounds:
`check` below.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import optuna
import ray
from optuna.pruners import SuccessiveHalvingPruner
from optuna.storages import InMemoryStorage
from optuna.trial import create_trial
from ray import tune
from ray.tune import PlacementGroupFactory
from rich.console import Console

from singer_ray.config import Config
from singer_ray.nodes.ray_cluster import NAMESPACE, ON_HEAD, Note
from singer_ray.search.driver.ask_tell import AskTell, StudySpec
from singer_ray.search.driver.search import run_search
from singer_ray.search.driver.tune_adapters import Failure, StudyScheduler, StudySearcher
from singer_ray.search.strategy.pruners import make_pruner
from singer_ray.search.strategy.samplers import make_sampler
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.opening import create_study, load_study, storage_of
from singer_ray.search.study.schema import FAULT, FOLDER, METRICS, SECONDS, TRIAL_ID
from singer_ray.search.workers.registry import HostRegistry, Places
from singer_ray.training.timing import StepTimes
from tests.benchmarks.children import write_raw
from tests.benchmarks.landscape import Recorded

MODULE = "tests.benchmarks.simulated"
RAW = Path(__file__).with_name("simulated.json")
TRIALS, CONCURRENT = 500, 16
EPOCH_SECONDS = 0.2
"""What an epoch takes. Trials that took no time would never run 16 at a time: each would end before the next starts."""
GATHERING = "simulated-gathering"
MOST_SECONDS, MOST_GROWTH, MOST_SUGGESTION, MOST_ADDED = 240.0, 60.0, 0.050, 0.002
"""Seconds of the search, MB that the driver may grow over its second half, seconds a TPE suggestion, and a trial."""


class CurveTrial(tune.Trainable):
    """A trial that reads its epochs from the recorded curves."""

    def setup(self, config: dict[str, Any]) -> None:
        self.recorded, self.gathered = Recorded(), False
        self.gathering = ray.get_actor(GATHERING, NAMESPACE)
        ray.get(self.gathering.come.remote())
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.curve, self.epoch = self.recorded.nearest(new_config["parameters"]), 0
        return True

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        return PlacementGroupFactory([ON_HEAD])

    def step(self) -> dict[str, Any]:
        while not self.gathered:
            self.gathered = bool(ray.get(self.gathering.complete.remote()))
            time.sleep(EPOCH_SECONDS)
        time.sleep(EPOCH_SECONDS)
        self.epoch += 1
        if self.curve.failed == self.epoch:
            return {"epoch": self.epoch, "done": True, FAULT: "diverged"}
        value = self.curve.values[self.epoch - 1]
        return {"epoch": self.epoch, "done": self.epoch == len(self.curve.values), self.recorded.metric: value}


class Gathering:
    """Where the first actors wait for each other, as if their trials took minutes.

    Ray Tune gives the actor of a trial that ends to one whose own actor still starts, and drops that one: as long as
    some are starting, each trial would start a process in vain.
    """

    def __init__(self, expected: int) -> None:
        self.missing = expected

    def come(self) -> None:
        self.missing -= 1

    def complete(self) -> bool:
        return self.missing <= 0


class CurvePool:
    """What the driver asks of its hosts, where there are none."""

    def __init__(self, metric: str, trials: int, prefix: str = "simulated") -> None:
        self.metric, self.registry_name = metric, f"{prefix}-registry"
        names = [f"{prefix}-host-{n}" for n in range(CONCURRENT)]
        registry: Any = ray.remote(num_cpus=0)(HostRegistry)
        self.registry = registry.options(name=self.registry_name).remote(Note(self.registry_name))
        self.registry.attend.remote(names)
        gathering: Any = ray.remote(num_cpus=0)(Gathering)
        self.gathering = gathering.options(name=GATHERING).remote(min(CONCURRENT, trials))

    def wait(self, log: Callable[[str], None]) -> list[str]:
        return [self.metric]

    def timing(self) -> StepTimes:
        return StepTimes(0, 0, 0, steps_per_epoch=1, evaluate_every=1)

    def ask(self, method: str, *given: Any) -> None:
        """Whether the corners of the space can be built: yes."""

    def interrupt(self) -> None: ...

    def places(self) -> Places:
        return Places(self.registry)

    def stop(self) -> None:
        ray.kill(self.registry)
        ray.kill(self.gathering)


def resident_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def watched_memory(every: float = 1.0) -> Iterator[list[tuple[float, float]]]:
    """(seconds, resident MB of this process) while the block runs."""
    begin, over = time.perf_counter(), threading.Event()
    seen: list[tuple[float, float]] = []

    def watch() -> None:
        while not over.wait(every):
            seen.append((time.perf_counter() - begin, resident_mb()))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def searched(config: Config, out: Path, *, fresh: bool) -> dict[str, Any]:
    """The whole search; seconds and memory from its first trial's start to its last one's end."""
    metric, plain = Recorded().metric, tune.TuneConfig

    def pool(*_: Any, **__: Any) -> CurvePool:
        return CurvePool(metric, config.search.trials)

    def settings(**given: Any) -> tune.TuneConfig:
        return plain(**{**given, "reuse_actors": not fresh, "max_concurrent_trials": CONCURRENT})

    begin = time.time()
    with ExitStack() as stack, open(os.devnull, "w", encoding="utf-8") as nowhere:
        stack.enter_context(mock.patch("singer_ray.search.workers.trainable.DistillationTrial", CurveTrial))
        stack.enter_context(mock.patch("singer_ray.search.workers.pool.HostPool", pool))
        stack.enter_context(mock.patch("singer_ray.search.driver.session.package_best", return_value=()))
        stack.enter_context(mock.patch.object(tune, "TuneConfig", settings))
        memory = stack.enter_context(watched_memory())
        cpu = time.process_time()
        done = run_search(config, out, space="singer", console=Console(file=nowhere))
        cpu, whole = time.process_time() - cpu, time.time() - begin
    rows = load_study(storage_of(None, out), out.name).trials
    starts = [row.datetime_start.timestamp() for row in rows if row.datetime_start]
    ends = sorted(row.datetime_complete.timestamp() for row in rows if row.datetime_complete)
    half = [mb for second, mb in memory if second + begin >= ends[len(ends) // 2]]
    states = [row.state.name for row in rows]
    assert len(ends) == config.search.trials, f"{len(ends)} of {config.search.trials} trials ended"
    return {
        "whole": whole,
        "seconds": ends[-1] - min(starts),
        "driver_cpu_seconds": cpu,
        "trials": len(done.leaderboard),
        "states": {state: states.count(state) for state in sorted(set(states))},
        "reports": sum(len(row.intermediate_values) for row in rows),
        "ended_by_tenth": [round(ends[len(ends) * tenth // 10 - 1] - ends[0], 1) for tenth in range(1, 11)],
        "rss_peak_mb": max(mb for _, mb in memory),
        "rss_growth_second_half_mb": max(half) - half[0],
        "rss_mb": [(round(second), round(mb)) for second, mb in memory[::5]],
    }


def suggestion_seconds(recorded: Recorded, sampler: str, rows: int, times: int) -> dict[str, float]:
    """Median, least and CPU seconds of a suggestion behind so many finished rows and CONCURRENT running ones."""
    config = recorded.config.override({"search.sampler": sampler})
    objectives = Objectives.of([recorded.metric], None, [recorded.metric])
    study = create_study(InMemoryStorage(), "suggestions", objectives)
    study.sampler = optuna.samplers.RandomSampler(seed=0)
    for _ in range(rows):
        trial = study.ask()
        recorded.space(trial)
        values = recorded.nearest(trial.params).values
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        study.add_trial(
            create_trial(
                params=trial.params,
                distributions=trial.distributions,
                value=values[-1],
                intermediate_values=dict(enumerate(values, 1)),
            )
        )
    for _ in range(CONCURRENT):
        recorded.space(study.ask())
    study.sampler = make_sampler(config, recorded.space, objectives)
    seconds, cpu = [], []
    for _ in range(times):
        begin, spent = time.perf_counter(), time.process_time()
        trial = study.ask()
        recorded.space(trial)
        seconds.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - spent)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return {"median": statistics.median(seconds), "least": min(seconds), "cpu": statistics.median(cpu)}


def added_seconds(recorded: Recorded, out: Path, trials: int = 200) -> dict[str, float]:
    """Seconds of a trial (asked, all epochs reported and judged, told) bare and through our searcher, told in turns.

    Both on a journal file, both with random suggestions and successive halving, which is asked and not obeyed; both
    leave the same row, attributes included.
    """
    out.mkdir(parents=True, exist_ok=True)
    config = recorded.config.override({"search.sampler": "random"})
    objectives = Objectives.of([recorded.metric], None, [recorded.metric])
    studies = {}
    for name in ("bare", "ours"):
        (out / name).mkdir(exist_ok=True)
        studies[name] = create_study(storage_of(None, out / name), name, objectives)
    studies["bare"].sampler = make_sampler(config, recorded.space, objectives)
    search = config.search
    studies["bare"].pruner = SuccessiveHalvingPruner(
        min_resource=search.grace_epochs, reduction_factor=search.reduction_factor
    )
    ask_tell = AskTell(
        studies["ours"],
        StudySpec(recorded.space, objectives, config.train.epochs, trials, folder=str(out)),
        pruner=make_pruner(config),
        sampler_of=lambda number: make_sampler(config, recorded.space, objectives, number=number),
    )
    failure = Failure()
    searcher, scheduler = StudySearcher(ask_tell, failure), StudyScheduler(ask_tell, failure)
    controller: Any = None

    def bare(values: list[float]) -> None:
        trial = studies["bare"].ask()
        recorded.space(trial)
        trial.set_user_attr(TRIAL_ID, "trial")
        trial.set_user_attr(FOLDER, f"{out}/{trial.number:03d}")
        for epoch, value in enumerate(values, 1):
            trial.report(value, epoch)
            if epoch < len(values):
                trial.should_prune()
        trial.set_user_attr(METRICS, {"epoch": len(values), recorded.metric: values[-1]})
        trial.set_user_attr(SECONDS, 1.0 * len(values))
        studies["bare"].tell(trial, values[-1])

    def ours(values: list[float]) -> None:
        assigned = searcher.suggest("trial")
        assert assigned is not None
        trial: Any = mock.Mock(config=assigned)
        for epoch, value in enumerate(values, 1):
            result = {"epoch": epoch, recorded.metric: value, "trained_seconds": 1.0 * epoch}
            scheduler.on_trial_result(controller, trial, result)
            searcher.on_trial_result("trial", result)
        searcher.on_trial_complete("trial", result)

    wall: dict[str, list[float]] = {"bare": [], "ours": []}
    cpu: dict[str, list[float]] = {"bare": [], "ours": []}
    for number in range(trials):
        values = recorded.curves[number % len(recorded.curves)].values
        for name, one in (("bare", bare), ("ours", ours))[:: 1 if number % 2 else -1]:
            spent, begin = time.thread_time(), time.perf_counter()
            one(values)
            wall[name].append(time.perf_counter() - begin)
            cpu[name].append(time.thread_time() - spent)
    pairs = [ours - bare for bare, ours in zip(wall["bare"], wall["ours"])]
    return {
        "bare": statistics.median(wall["bare"]),
        "ours": statistics.median(wall["ours"]),
        "added": statistics.median(pairs),
        "bare_cpu": statistics.median(cpu["bare"]),
        "ours_cpu": statistics.median(cpu["ours"]),
    }


def check(search: Mapping[str, Any], suggestions: Mapping[str, Mapping[str, float]], added: float) -> list[str]:
    """What does not hold, in words."""
    bounds = (
        ("seconds of the search", search["seconds"], MOST_SECONDS),
        ("MB that the driver grew in the second half", search["rss_growth_second_half_mb"], MOST_GROWTH),
        ("seconds a suggestion of tpe at 500 rows", suggestions["tpe 500"]["median"], MOST_SUGGESTION),
        ("seconds that our searcher adds to a trial", added, MOST_ADDED),
    )
    return [f"{found:.4g} {name}, more than {most:g}" for name, found, most in bounds if found > most]


def main() -> int:
    """Runs the parts one after the other, writes the raw figures and prints them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/simulated"))
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--fresh", action="store_true", help="an actor for each trial, as in the product")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    load, recorded, out = os.getloadavg()[0], Recorded(), given.out / time.strftime("%Y%m%d-%H%M%S")
    config = recorded.config.override(
        {"search.trials": given.trials, "search.concurrent": CONCURRENT, "search.cpus_per_trial": 0.1}
    )
    search = searched(config, out / "search", fresh=given.fresh)
    print(json.dumps({k: v for k, v in search.items() if k != "rss_mb"}), flush=True)
    added = added_seconds(recorded, out)
    print(f"a trial: {json.dumps(added)}", flush=True)
    suggestions = {}
    for sampler, times in (("random", 20), ("tpe", 20), ("gp", 3)):
        for rows in (100, 500):
            suggestions[f"{sampler} {rows}"] = suggestion_seconds(recorded, sampler, rows, times)
            print(f"a suggestion, {sampler} {rows}: {json.dumps(suggestions[f'{sampler} {rows}'])}", flush=True)
    figures = {"load": load, "fresh": given.fresh, "search": search, "added": added, "suggestions": suggestions}
    write_raw(RAW, MODULE, figures)
    faults = check(search, suggestions, added["added"])
    print("\n".join(faults) or "all bounds hold")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
