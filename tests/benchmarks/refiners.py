"""All refiners on one loop and budget: 300 and 900 steps, seed i with planted teacher i (i = 0 to 2).

    python -m tests.benchmarks.refiners --out runs/refiners          (about 50 minutes on 2 cores)

The oracle is `none` with the clean teacher. Settings are those of the preset demo and of each refiner's defaults; the
official variant runs with its own loss weights (kd 100, outlier 0.01, info 1). Raw figures: refiners.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.children import Metrics, in_processes, write_raw

MODULE = "tests.benchmarks.refiners"
SEEDS = (0, 1, 2)
RAW = Path(__file__).with_name("refiners.json")
OFFICIAL = {
    "method.variant": "official",
    "method.loss.kd": 100.0,
    "method.loss.outlier": 0.01,
    "method.loss.info": 1.0,
}
REFINERS: dict[str, dict[str, Any]] = {
    "none": {"method.refiner": "none"},
    "vitkd": {"method.refiner": "vitkd"},
    "layernorm": {"method.refiner": "layernorm"},
    "quantile_clip": {"method.refiner": "quantile_clip"},
    "clip": {"method.refiner": "clip"},
    "singer": {},
    "singer, no radial part": {"method.radial": False},
    "singer gated": {"method.gate": 2.0, "method.radial": False},
}
AT_300_ONLY: dict[str, dict[str, Any]] = {
    "singer random": {"method.linearization": "random", "method.radial": False},
    "singer paper": {"method.variant": "paper"},
    "singer official": OFFICIAL,
}
SHOWN = ("val/miou", "test/miou", "test/linear_top1", "test/depth_rmse")


def one_seed(seed: int, out: Path) -> Metrics:
    """Metrics by "REFINER STEPS" for one seed; those in OUT/seed-N.partial.json are not computed again."""
    import torch

    from singer_ray.config import load_preset
    from singer_ray.training.context import TrainContext
    from tests.benchmarks.acceptance import teacher_folder
    from tests.benchmarks.together import train_together

    torch.set_num_threads(1)
    folder = teacher_folder(seed, out)
    planted, clean = (f"local-dir:{folder}/planted", f"local-dir:{folder}/clean") if folder else ("demo", "demo-clean")
    base = load_preset("demo").override({"seed": seed, "teacher.name": planted})
    configs = {
        f"{name} {steps}": base.override({**settings, "train.epochs": steps // 50})
        for steps in (300, 900)
        for name, settings in {**REFINERS, **(AT_300_ONLY if steps == 300 else {})}.items()
    }
    pure = base.override({"teacher.name": clean, "method.refiner": "none"})
    oracle = {f"oracle {steps}": pure.override({"train.epochs": steps // 50}) for steps in (300, 900)}
    partial = out / f"seed-{seed}.partial.json"
    metrics: Metrics = json.loads(partial.read_text()) if partial.exists() else {}
    for context, group in ((TrainContext(base), configs), (TrainContext(pure), oracle)):
        missing = {name: config for name, config in group.items() if name not in metrics}
        if missing:
            metrics |= train_together(context, missing, what=f"seed {seed}, {context.config.teacher.name}")
            partial.write_text(json.dumps(metrics))
    return metrics


def gap_closed(metrics: Metrics, name: str, steps: int) -> float:
    """Share of the validation mIoU gap from `none` to the oracle that a refiner closes."""
    none, oracle = (metrics[f"{n} {steps}"]["val/miou"] for n in ("none", "oracle"))
    return (metrics[f"{name} {steps}"]["val/miou"] - none) / (oracle - none)


def print_table(by_seed: Mapping[int, Metrics]) -> None:
    """Mean and spread over seeds."""
    print(f"{'':20}" + "".join(f"{name:>22}" for name in (*SHOWN, "gap closed")))
    for run in sorted(by_seed[SEEDS[0]], key=lambda run: int(run.split()[-1])):
        name, _, steps = run.rpartition(" ")
        columns = [[by_seed[s][run][shown] for s in by_seed] for shown in SHOWN]
        columns.append([gap_closed(by_seed[s], name, int(steps)) for s in by_seed])
        cells = (f"{statistics.mean(v):.3f} +- {statistics.stdev(v):.3f}" for v in columns)
        print(f"{run:20}" + "".join(f"{cell:>22}" for cell in cells))


def check(by_seed: Mapping[int, Metrics]) -> list[str]:
    """What does not hold, in words: SiNGER closes 80% of the gap in the mean and 70% on each seed."""
    faults = []
    for steps in (300, 900):
        shares = [gap_closed(metrics, "singer", steps) for metrics in by_seed.values()]
        if statistics.mean(shares) < 0.8 or min(shares) < 0.7:
            faults.append(f"singer closes {shares} of the gap at {steps} steps")
    return faults


def main() -> int:
    """Runs the seeds in processes of their own, two at a time; writes the raw figures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/refiners"))
    parser.add_argument("--seed", type=int, help="one seed only, without the table")
    given = parser.parse_args()
    if given.seed is not None:
        (given.out / f"seed-{given.seed}.json").write_text(json.dumps(one_seed(given.seed, given.out)))
        return 0

    found = in_processes(MODULE, {f"seed-{seed}": ("--seed", seed) for seed in SEEDS}, given.out)
    by_seed = dict(zip(SEEDS, found.values()))
    write_raw(RAW, MODULE, by_seed)
    print_table(by_seed)
    faults = check(by_seed)
    print("\n".join(faults) or "all bounds hold")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
