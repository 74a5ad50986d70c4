"""What a trial of a search costs beyond the same loop in a bare process, with one trial at a time.

    python -m tests.benchmarks.overhead --out runs/overhead          (about 5 minutes on 2 idle cores)

Rounds of: the loop in a process of its own (begin a trainer, train its epochs, save a checkpoint after each), then the
same settings as a search through `python -m singer_ray.tune`, so that both see the same machine. A trial's seconds in
the search go from one row's end to the next one's in the study: thin actor, placement, reports and checkpoints
included. `first` is a host's start (worker process, imports, workbench) and its first trial. What a search does once is
told apart: `start_up` until hosts are asked for (the command, Ray), `forecast` (timed steps and checks on the ready
host, which also pay for what torch does only once: so `first` too is compared with a later trial of the bare loop),
and `after_the_last_trial` (test metrics, packages, report).
Raw figures: overhead.json. Bounds: `check` below; timings mean nothing on a machine that does other work meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from tests.benchmarks.children import write_raw

MODULE = "tests.benchmarks.overhead"
RAW = Path(__file__).with_name("overhead.json")
ROUNDS, TRIALS = 3, 8
SETTINGS: dict[str, Any] = {
    "train.epochs": 2,
    "train.steps_per_epoch": 8,
    "method.prefit.steps": 20,
    "evaluation.fit_images": 64,
    "data.scenes.val_images": 64,
    "data.scenes.test_images": 64,
    "search.sampler": "random",
    "search.scheduler": "none",
    "search.trials": TRIALS,
    "search.concurrent": 1,
}
SPACE = "train.lr: {type: loguniform, low: 3.0e-3, high: 4.0e-3}\n"
FIRST_BOUND, LATER_BOUND = 10.0, 1.0


def bare(preset: Path, out: Path) -> dict[str, Any]:
    """Seconds of each trial of the loop in this process; the first one makes the context, as a host's first does."""
    begin = time.perf_counter()
    from singer_ray.config import load_preset
    from singer_ray.training import checkpoint
    from singer_ray.training.context import TrainContext
    from singer_ray.training.loop import epochs
    from singer_ray.training.trainer import StudentTrainer

    config = load_preset(str(preset))
    imports = time.perf_counter() - begin
    seconds, context = [], None
    for _ in range(TRIALS):
        begin = time.perf_counter()
        context = context or TrainContext(config)
        trainer = StudentTrainer.begin(context, config)
        for _ in epochs(trainer):
            checkpoint.save(out, trainer.state())
        seconds.append(time.perf_counter() - begin)
    return {"imports": imports, "trials": seconds}


def searched(preset: Path, space: Path, out: Path) -> dict[str, Any]:
    """The search in this process: seconds of its trials, each from the end of the one before, and of what is around."""
    begin = time.time()
    import optuna

    from singer_ray import tune
    from singer_ray.cli import run_command
    from singer_ray.search.study.opening import storage_of
    from singer_ray.search.workers.pool import HostPool

    marks: dict[str, float] = {}

    class Clocked(HostPool):
        def __init__(self, *given: Any, **named: Any) -> None:
            marks["asked"] = time.time()
            super().__init__(*given, **named)

        def wait(self, log: Callable[[str], None]) -> list[str]:
            found = super().wait(log)
            marks["ready"] = time.time()
            return found

    flags = ["--preset", str(preset), "--space", str(space), "--out", str(out), "--overwrite"]
    with (
        mock.patch("singer_ray.search.workers.pool.HostPool", Clocked),
        mock.patch.object(sys, "argv", ["tune", *flags]),
    ):
        assert run_command(tune.COMMAND, tune.main) == 0
    end = time.time()
    rows = optuna.load_study(study_name=out.name, storage=storage_of(None, out)).trials
    started = min(row.datetime_start.timestamp() for row in rows if row.datetime_start)
    ends = sorted(row.datetime_complete.timestamp() for row in rows if row.datetime_complete)
    assert len(ends) == TRIALS, f"{out} has {len(ends)} finished trials of {TRIALS}"
    return {
        "start_up": marks["asked"] - begin,
        "host": marks["ready"] - marks["asked"],
        "forecast": started - marks["ready"],
        "trials": [after - before for before, after in zip([started, *ends], ends)],
        "after_the_last_trial": end - ends[-1],
    }


def figures(rounds: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Medians over rounds, in seconds: overhead of a host's first trial and of each later one, and what else is."""
    alone = [statistics.median(r["bare"]["trials"][1:]) for r in rounds]
    first = [r["search"]["host"] + r["search"]["trials"][0] - bare for r, bare in zip(rounds, alone)]
    later = [t - bare for r, bare in zip(rounds, alone) for t in r["search"]["trials"][1:]]
    apart = ("start_up", "host", "forecast", "after_the_last_trial")
    return {
        "first": statistics.median(first),
        "later": statistics.median(later),
        "later_least": min(later),
        "later_most": max(later),
        "bare_first": statistics.median(r["bare"]["trials"][0] for r in rounds),
        "bare_later": statistics.median(alone),
        "bare_imports": statistics.median(r["bare"]["imports"] for r in rounds),
        **{name: statistics.median(r["search"][name] for r in rounds) for name in apart},
    }


def check(found: Mapping[str, float]) -> list[str]:
    """What does not hold, in words."""
    bounds = (("first", FIRST_BOUND), ("later", LATER_BOUND))
    return [f"{name} is {found[name]:.2f} s, more than {most} s" for name, most in bounds if found[name] > most]


def main() -> int:
    """Runs the rounds, one process at a time; writes the raw figures and prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/overhead"))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--part", choices=("bare", "search"), help="one part of a round only, in this process")
    given = parser.parse_args()
    preset, space = given.out / "preset.yaml", given.out / "space.yaml"
    if given.part:
        found = bare(preset, given.out) if given.part == "bare" else searched(preset, space, given.out / "search")
        (given.out / f"{given.part}.json").write_text(json.dumps(found), encoding="utf-8")
        return 0
    from singer_ray.config import load_preset

    given.out.mkdir(parents=True, exist_ok=True)
    preset.write_text(load_preset("demo").override(SETTINGS).to_yaml(), encoding="utf-8")
    space.write_text(SPACE, encoding="utf-8")
    rounds = []
    for number in range(given.rounds):
        rounds.append({"load": os.getloadavg()[0], **{part: child(part, given.out) for part in ("bare", "search")}})
        print(f"round {number + 1} of {given.rounds}: {figures(rounds[-1:])}", flush=True)
    found = figures(rounds)
    write_raw(RAW, MODULE, {"settings": SETTINGS, "figures": found, "rounds": rounds})
    print("\n".join(f"{name:24}{value:8.2f} s" for name, value in found.items()))
    faults = check(found)
    print("\n".join(faults) or "all bounds hold")
    return bool(faults)


def child(part: str, out: Path) -> dict[str, Any]:
    """What a part of a round found, in a process of its own; its output is kept beside."""
    with (out / f"{part}.log").open("a", encoding="utf-8") as log:
        command = [sys.executable, "-m", MODULE, "--part", part, "--out", str(out)]
        subprocess.run(command, check=True, stdout=log, stderr=log)
    return dict(json.loads((out / f"{part}.json").read_text(encoding="utf-8")))


if __name__ == "__main__":
    sys.exit(main())
