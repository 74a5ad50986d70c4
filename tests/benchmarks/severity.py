"""Where does a fitted adapter beat a norm clip? Artifacts on 4, 15, 30 % of the background, in 1, 3, 8 directions.

    python -m tests.benchmarks.severity --out runs/severity          (about 25 minutes on 2 cores)

Each cell plants such artifacts in the shipped clean teacher (block 2, largest token 22 times the median), fine-tunes
the blocks behind them for 250 steps with fresh dense heads, and distils students for 300 steps, seed 0. The oracle of
them all is the one of seed 0 in refiners.json. One seed a cell: small differences mean nothing. Raw figures:
severity.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.children import Metrics, in_processes, write_raw

MODULE = "tests.benchmarks.severity"
CELLS = [(share, units) for share in (0.04, 0.15, 0.30) for units in (1, 3, 8)]
RAW = Path(__file__).with_name("severity.json")
FITTED = {"method.linearization": "attention_mlp", "method.freeze": False}
STUDENTS: dict[str, dict[str, Any]] = {
    "none": {"method.refiner": "none"},
    "clip": {"method.refiner": "clip"},
    "layernorm": {"method.refiner": "layernorm"},
    "singer fitted": FITTED,
    "singer fitted, no radial part": {**FITTED, "method.radial": False},
}


def one_cell(share: float, units: int) -> Metrics:
    """Metrics by student of one cell, and the teacher's artifact figures in each."""
    import torch

    from singer_ray.config import TeacherRecipe, load_preset
    from singer_ray.data.scenes import Scenes
    from singer_ray.data.views import derive
    from singer_ray.demo.supervised import SupervisedTeacher
    from singer_ray.demo.teacher import plant
    from singer_ray.training.context import TrainContext
    from singer_ray.vision.models import load_teacher
    from tests.benchmarks.together import train_together

    torch.set_num_threads(1)
    base = load_preset("demo")
    recipe = TeacherRecipe(plant=True, plant_units=units, plant_share=share)
    source = Scenes("train", recipe.scenes, derive(base.data.scenes.seed, base.seed))
    torch.manual_seed(0)
    teacher = SupervisedTeacher(load_teacher("demo-clean", base.data.image_size).requires_grad_(True), source)
    plant(teacher, source, base, recipe, torch.device("cpu"))
    context = TrainContext(base, teacher=teacher.model)
    configs = {name: base.override(settings) for name, settings in STUDENTS.items()}
    return train_together(context, configs, what=f"{share:.0%} in {units}")


def main() -> int:
    """Runs the cells in processes of their own, two at a time; writes the raw figures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/severity"))
    parser.add_argument("--cell", nargs=2, type=float, metavar=("SHARE", "UNITS"), help="one cell only")
    given = parser.parse_args()
    if given.cell:
        share, units = given.cell[0], int(given.cell[1])
        (given.out / f"{share:g}-{units}.json").write_text(json.dumps(one_cell(share, units)))
        return 0

    parts = {f"{share:g}-{units}": ("--cell", share, units) for share, units in CELLS}
    found = in_processes(MODULE, parts, given.out)
    write_raw(RAW, MODULE, found)
    print(f"{'share  directions  max/median':32}" + "".join(f"{name[:20]:>22}" for name in STUDENTS))
    for (share, units), metrics in zip(CELLS, found.values()):
        ratio = metrics["none"]["teacher/max_median_norm/3"]
        cells = (f"{m['val/miou']:.3f} / {m['test/miou']:.3f}" for m in (metrics[name] for name in STUDENTS))
        print(f"{share:5.0%}  {units:10}  {ratio:10.1f}    " + "".join(f"{cell:>22}" for cell in cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
