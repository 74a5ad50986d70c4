"""All refiners on one loop and budget: 300 and 900 steps, seed i with planted teacher i (i = 0 to 2).

    python -m tests.benchmarks.refiners --out runs/refiners          (about 2 hours on 2 cores)

The oracle is `none` with the clean teacher. Settings are those of the preset demo and of each refiner's defaults; the
official variant runs with its own loss weights (kd 100, outlier 0.01, info 1). Raw figures: refiners.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.benchmarks.acceptance import teacher_folder
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
FITTED = {"method.linearization": "attention_mlp"}
REFINERS: dict[str, dict[str, Any]] = {
    "none": {"method.refiner": "none"},
    "vitkd": {"method.refiner": "vitkd"},
    "layernorm": {"method.refiner": "layernorm"},
    "quantile_clip": {"method.refiner": "quantile_clip"},
    "clip": {"method.refiner": "clip"},
    "neighbours": {"method.refiner": "neighbours"},
    "relational": {"method.refiner": "relational"},
    "registers": {"method.refiner": "none", "method.wrapper": "registers"},
    "shift_average": {"method.refiner": "none", "method.wrapper": "shift_average"},
    "target layernorm, smooth_l1": {
        "method.refiner": "none",
        "method.target": "layernorm",
        "method.distance": "smooth_l1",
    },
    "target standardize": {"method.refiner": "none", "method.target": "standardize"},
    "distance mixed": {"method.refiner": "none", "method.distance": "mixed"},
    "singer": {},
    "singer, no radial part": {"method.radial": False},
    "singer fitted, frozen": FITTED,
    "singer fitted, trained on": {**FITTED, "method.freeze": False},
}
AT_300_ONLY: dict[str, dict[str, Any]] = {
    "singer fitted gated": {**FITTED, "method.freeze": False, "method.gate": 2.0, "method.radial": False},
    "singer fitted, no radial part": {**FITTED, "method.freeze": False, "method.radial": False},
    "singer random": {"method.linearization": "random", "method.freeze": False, "method.radial": False},
    "singer paper": {"method.variant": "paper"},
    "singer official": OFFICIAL,
}
LONG = (
    "none",
    "vitkd",
    "layernorm",
    "quantile_clip",
    "clip",
    "singer",
    "singer, no radial part",
    "singer fitted, frozen",
    "singer fitted, trained on",
    "singer fitted gated",
    "singer fitted, no radial part",
)
"""Of those, what is also trained for 900 steps."""
STEPS = (300, 900)
GROUP = 6
"""Students that are trained in one process."""
SHOWN = ("val/miou", "test/miou", "test/linear_top1", "test/depth_rmse")


def students_of(steps: int) -> list[str]:
    """What is trained for so many steps, the oracle last."""
    return [*(LONG if steps == STEPS[1] else (*REFINERS, *AT_300_ONLY)), "oracle"]


def one_part(seed: int, steps: int, first: int, given: argparse.Namespace) -> Metrics:
    """Metrics by remedy for one seed and length, of the GROUP students from `first` on."""
    import torch

    from singer_ray.config import load_preset
    from singer_ray.training.context import TrainContext
    from tests.benchmarks.together import probe_scores, train_together

    torch.set_num_threads(1)
    folder = teacher_folder(seed, given.out)
    planted, clean = (f"local-dir:{folder}/planted", f"local-dir:{folder}/clean") if folder else ("demo", "demo-clean")
    base = load_preset("demo").override({"seed": seed, "train.device": given.device, "train.epochs": steps // 50})
    settings = {**REFINERS, **AT_300_ONLY, "oracle": REFINERS["none"]}
    chosen = students_of(steps)[first : first + GROUP]
    metrics: Metrics = {}
    for teacher, names in (
        (planted, [n for n in chosen if n != "oracle"]),
        (clean, [n for n in chosen if n == "oracle"]),
    ):
        config = base.override({"teacher.name": teacher})
        configs = {name: config.override(settings[name]) for name in names}
        if configs:
            what = f"seed {seed}, {steps} steps, {teacher.split('/')[-1]}"
            metrics |= train_together(TrainContext(config), configs, what=what, metrics_of=probe_scores)
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
    """Runs the parts in processes of their own; writes the raw figures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/refiners"))
    parser.add_argument("--at-once", type=int, default=2, help="processes")
    parser.add_argument("--device", default="cpu", help="train.device of the students")
    parser.add_argument("--part", nargs=3, type=int, metavar=("SEED", "STEPS", "FIRST"), help="one part only")
    given = parser.parse_args()
    if given.part:
        seed, steps, first = given.part
        (given.out / f"{'-'.join(map(str, given.part))}.json").write_text(
            json.dumps(one_part(seed, steps, first, given))
        )
        return 0

    given.out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(given.at_once) as pool:
        list(pool.map(lambda seed: teacher_folder(seed, given.out), SEEDS))
    parts = [(s, n, k) for n in reversed(STEPS) for s in SEEDS for k in range(0, len(students_of(n)), GROUP)]
    named = {"-".join(map(str, part)): ("--part", *part, "--device", given.device) for part in parts}
    found = in_processes(MODULE, named, given.out, given.at_once)
    by_seed: dict[int, Metrics] = {seed: {} for seed in SEEDS}
    for (seed, steps, _), metrics in zip(parts, found.values()):
        by_seed[seed] |= {f"{name} {steps}": values for name, values in metrics.items()}
    write_raw(RAW, MODULE, by_seed)
    print_table(by_seed)
    faults = check(by_seed)
    print("\n".join(faults) or "all bounds hold")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
