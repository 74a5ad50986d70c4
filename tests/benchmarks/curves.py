"""Learning curves of many settings, recorded once: searches can then be simulated on them without training.

    python -m tests.benchmarks.curves --out runs/curves          (about 40 minutes on one core)

The first points of a scrambled Sobol sequence over tune_spaces/singer.yaml, each trained on the preset demo with the
settings below and scored after each epoch. Members that share a teacher pass give the numbers that they give one by
one (`together`). A setting whose loss is no longer finite has a shorter curve and `failed`: the epoch. OUT keeps every
group that is done, so an interrupted recording goes on. The curves: curves.json.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna

from singer_ray.config import Config, load_preset
from singer_ray.search.space.space import SearchSpace, load_space
from tests.benchmarks.children import write_raw

MODULE = "tests.benchmarks.curves"
RAW = Path(__file__).with_name("curves.json")
METRIC = "val/miou"
COUNT, GROUP = 96, 8
SETTINGS: dict[str, Any] = {
    "train.epochs": 9,
    "train.steps_per_epoch": 28,
    "train.batch_size": 32,
    "method.prefit.steps": 100,
    "method.prefit.batch_size": 16,
    "evaluation.fit_images": 256,
}
"""What differs from the preset, so that a setting costs 24 seconds rather than a minute."""

Curve = dict[str, Any]
"""`parameters` (dotted names), `values` (METRIC after each epoch), `failed` (epoch of the divergence, or null)."""


def sampled(space: SearchSpace, count: int) -> list[dict[str, Any]]:
    """The first points of a scrambled Sobol sequence."""
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.QMCSampler(scramble=True, seed=0, warn_independent_sampling=False)
    study = optuna.create_study(sampler=sampler)
    study.sampler.infer_relative_search_space = lambda *_: dict(space.distributions)  # type: ignore[method-assign]
    points = []
    for _ in range(count):
        trial = study.ask()
        space(trial)
        points.append(dict(trial.params))
    return points


def record(base: Config, points: Mapping[int, dict[str, Any]]) -> dict[str, Curve]:
    """The curve of each point, by its number; all students of the group share each teacher pass."""
    import torch

    from singer_ray.training.context import TrainContext
    from singer_ray.training.trainer import StudentTrainer

    torch.set_num_threads(1)
    context = TrainContext(base)
    curves: dict[str, Curve] = {str(n): {"parameters": p, "values": [], "failed": None} for n, p in points.items()}
    trainers = {str(n): StudentTrainer.begin(context, base.override(p)) for n, p in points.items()}
    first = next(iter(trainers.values()))
    batches = context.batches(batch_size=base.train.batch_size, seed=base.seed)
    for epoch in range(1, base.train.epochs + 1):
        for _ in range(first.steps_per_epoch):
            pixels = context.pixels(next(batches))
            features = context.teacher_pass(first.teacher, pixels)
            for name, trainer in list(trainers.items()):
                if not math.isfinite(float(trainer.step(pixels, features)["loss"])):
                    curves[name]["failed"] = epoch
                    del trainers[name]
        for name, trainer in trainers.items():
            curves[name]["values"].append(round(context.suite.score(trainer.reader(), ["val"])[METRIC], 5))
    return curves


def main() -> int:
    """Records what OUT lacks, group by group, and writes all curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/curves"))
    parser.add_argument("--count", type=int, default=COUNT)
    given = parser.parse_args()
    base = load_preset("demo").override(SETTINGS)
    points = dict(enumerate(sampled(load_space("singer", base), given.count)))
    given.out.mkdir(parents=True, exist_ok=True)
    curves: dict[str, Curve] = {}
    for start in range(0, given.count, GROUP):
        group = {n: points[n] for n in range(start, min(start + GROUP, given.count))}
        path = given.out / f"{start:03d}-{len(group)}.json"
        if not path.exists():
            begin, spent = time.perf_counter(), time.process_time()
            path.write_text(json.dumps(record(base, group)), encoding="utf-8")
            seconds = f"{time.perf_counter() - begin:.0f} s, {time.process_time() - spent:.0f} s of CPU"
            print(f"settings {start} to {start + len(group) - 1}: {seconds}", flush=True)
        curves |= json.loads(path.read_text(encoding="utf-8"))
    write_raw(RAW, MODULE, {"metric": METRIC, "settings": SETTINGS, "curves": []})
    one_a_line = ",\n".join(json.dumps(curve) for curve in curves.values())
    RAW.write_text(RAW.read_text(encoding="utf-8").replace("[]", f"[\n{one_a_line}\n]"), encoding="utf-8")
    last = [curve["values"][-1] for curve in curves.values() if curve["failed"] is None]
    print(f"{len(curves)} curves, {len(curves) - len(last)} failed; {METRIC} at the end {min(last)} to {max(last)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
