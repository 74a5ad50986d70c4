"""What SiNGER gains over plain feature distillation on the built-in scenes: seeds 0 to 2, seed i with teacher i.

    python -m tests.benchmarks.acceptance --out runs/acceptance          (about 25 minutes on 2 cores)

For each seed a teacher is trained and planted (seed 0 is the shipped one), and four students are distilled for 300
steps: `none` (FitNet), `singer`, `singer` with a fitted adapter, and the oracle, which is `none` with the clean
teacher. Everything goes through the commands that users run. Raw figures: acceptance.json beside this file; bounds:
`check` below.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SEEDS = (0, 1, 2)
LAST = 5
RAW = Path(__file__).with_name("acceptance.json")


def run(command: str, *arguments: object) -> None:
    """One singer_ray command; its output goes to where this process's does."""
    subprocess.run([sys.executable, "-m", f"singer_ray.{command}", *map(str, arguments)], check=True)


def teacher_folder(seed: int, out: Path) -> Path | None:
    """Folder of the teacher of a seed, trained if need be; None for the shipped one."""
    if seed == 0:
        return None
    folder = out / f"teacher-{seed}"
    if not (folder / "result.json").exists():
        run("teacher", "--plant", "--seed", seed, "--out", folder, "--overwrite")
    return folder


def students(seed: int, out: Path) -> dict[str, dict[str, float]]:
    """Metrics of the three students of a seed."""
    folder = teacher_folder(seed, out)
    planted = f"local-dir:{folder}/planted" if folder else "demo"
    clean = f"local-dir:{folder}/clean" if folder else "demo-clean"
    found = {}
    fitted = ("--method.linearization", "attention_mlp", "--method.freeze", "false")
    for name, teacher, refiner, more in (
        ("none", planted, "none", ()),
        ("singer", planted, "singer", ()),
        ("fitted", planted, "singer", fitted),
        ("oracle", clean, "none", ()),
    ):
        student = out / f"{name}-{seed}"
        if not (student / "result.json").exists():
            run(
                "train",
                "--preset",
                "demo",
                "--seed",
                seed,
                "--teacher.name",
                teacher,
                "--method.refiner",
                refiner,
                *more,
                "--evaluation.every",
                6,
                "--out",
                student,
                "--overwrite",
            )
        found[name] = json.loads((student / "result.json").read_text())["metrics"]
    return found


def summarize(found: dict[str, dict[str, float]]) -> dict[str, float]:
    """The figures that the bounds are about, for one seed."""
    none, singer, oracle = found["none"], found["singer"], found["oracle"]
    layers = [name.rpartition("/")[2] for name in singer if name.startswith("refined/max_median_norm/")]
    return {
        "miou_gain": singer["val/miou"] - none["val/miou"],
        "test_miou_gain": singer["test/miou"] - none["test/miou"],
        "linear_gain": singer["val/linear_top1"] - none["val/linear_top1"],
        "depth_ratio": singer["val/depth_rmse"] / none["val/depth_rmse"],
        "teacher_max_median": max(singer[f"teacher/max_median_norm/{n}"] for n in layers),
        "refined_max_median": max(singer[f"refined/max_median_norm/{n}"] for n in layers),
        "gram_cosine": singer[f"refined/gram_cosine/{LAST}"],
        "fitted_gram_cosine": found["fitted"][f"refined/gram_cosine/{LAST}"],
        "oracle_gap": singer["val/miou"] - oracle["val/miou"],
        "gap_closed": (singer["val/miou"] - none["val/miou"]) / (oracle["val/miou"] - none["val/miou"]),
    }


def check(figures: dict[str, float]) -> list[str]:
    """What does not hold for one seed, in words; empty when all does."""
    bounds = [
        ("miou_gain", figures["miou_gain"] >= 0.10),
        ("test_miou_gain", figures["test_miou_gain"] >= 0.10),
        ("linear_gain", figures["linear_gain"] >= 0.12),
        ("depth_ratio", figures["depth_ratio"] <= 0.65),
        ("teacher_max_median", figures["teacher_max_median"] >= 8),
        ("refined_max_median", figures["refined_max_median"] <= 4),
        # L_info holds the fitted adapter to the teacher's relations. The closed form knows nothing of them: artifacts,
        # alike in the teacher, are not behind it (.92 on the demonstration, .989 among normal patches).
        ("fitted_gram_cosine", figures["fitted_gram_cosine"] >= 0.99),
        ("gram_cosine", figures["gram_cosine"] >= 0.9),
        ("oracle_gap", figures["oracle_gap"] >= -0.08),
    ]
    return [f"{name} is {figures[name]:.3f}" for name, holds in bounds if not holds]


def main() -> int:
    """Runs all seeds, two processes at a time, writes the raw figures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/acceptance"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        metrics = dict(zip(SEEDS, pool.map(lambda seed: students(seed, out), SEEDS)))
    figures = {seed: summarize(found) for seed, found in metrics.items()}
    raw: dict[str, Any] = {
        "command": "python -m tests.benchmarks.acceptance",
        "hardware": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": json.loads((out / "singer-0" / "result.json").read_text())["versions"],
        "figures": figures,
        "metrics": metrics,
    }
    RAW.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    for name in figures[0]:
        values = [figures[seed][name] for seed in SEEDS]
        spread = f"{statistics.mean(values):7.3f} +- {statistics.stdev(values):.3f}"
        print(f"{name:20} {spread}   " + " ".join(f"{v:7.3f}" for v in values))
    faults = [f"seed {seed}: {fault}" for seed in SEEDS for fault in check(figures[seed])]
    print("\n".join(faults) or "all bounds hold")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
