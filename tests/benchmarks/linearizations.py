"""What the next block notices: of perturbations in the directions that each linearisation picks, and of each refiner.

    python -m tests.benchmarks.linearizations --teachers runs/refiners          (about 5 minutes on one core)

First table: relative change of the next block's branches under a random perturbation within the chosen directions, as a
ratio to one within random directions of the same rank and size (layer 3 of the teachers of seeds 0 to 2). Second: what
each refiner changes at its start and after its fit (200 steps; seed 0). Raw figures: linearizations.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from singer_ray.config import Config, load_preset
from singer_ray.evaluation.preservation import changes_of
from singer_ray.method.nullspace import (
    jacobian_matrix,
    linearized_block,
    mlp_matrix,
    null_directions,
    principal_directions,
    random_directions,
)
from singer_ray.publishing.result import versions
from singer_ray.training.context import TrainContext
from singer_ray.training.trainer import StudentTrainer
from tests.benchmarks.acceptance import teacher_folder

RAW = Path(__file__).with_name("linearizations.json")
RANKS, LAYER, DRAWS, SIZE = (4, 16, 32), 3, 8, 0.03
REFINERS: dict[str, dict[str, Any]] = {
    "clip": {"method.refiner": "clip"},
    "quantile_clip": {"method.refiner": "quantile_clip"},
    "layernorm": {"method.refiner": "layernorm"},
    **{
        f"singer, {kind}": {"method.linearization": kind, "method.radial": False}
        for kind in ("mlp", "attention_mlp", "jacobian", "random", "pca")
    },
    "singer, recommended": {},
    "singer, gated": {"method.gate": 2.0, "method.radial": False},
    "singer, paper": {"method.variant": "paper"},
}


def ratios(context: TrainContext) -> dict[str, float]:
    """ "KIND RANK" -> change of the branches over that of random directions."""
    teacher = context.tapped_teacher([LAYER, LAYER + 1])
    features = context.teacher_pass(teacher, context.pixels(next(context.batches(batch_size=32, seed=1))))
    tokens = features.tokens[LAYER]
    norms = tokens[:, teacher.prefix :].norm(dim=-1, keepdim=True)
    generator = torch.Generator().manual_seed(0)
    block = teacher.blocks[LAYER + 1]
    matrices = {
        "mlp": mlp_matrix(block),
        "attention_mlp": linearized_block(block),
        "jacobian": jacobian_matrix(
            lambda x: teacher.replay(LAYER + 1, x, features), tokens, teacher.prefix, 8, generator
        ),
    }

    def change(directions: torch.Tensor) -> float:
        found = []
        for _ in range(DRAWS):
            step = torch.randn(*norms.shape[:2], directions.shape[1], generator=generator) @ directions.T
            moved = tokens.clone()
            moved[:, teacher.prefix :] += SIZE * norms * step / step.norm(dim=-1, keepdim=True)
            found.append(changes_of(teacher, features, LAYER, lambda _, __, moved=moved: moved)["branch_change"])  # type: ignore[misc]
        return statistics.mean(found)

    figures: dict[str, float] = {}
    for rank in RANKS:
        reference = change(random_directions(tokens.shape[-1], rank, generator))
        spans = {name: null_directions(matrix, rank) for name, matrix in matrices.items()}
        spans["pca"] = principal_directions(tokens[:, teacher.prefix :], rank)
        figures |= {f"{name} {rank}": change(span) / reference for name, span in spans.items()}
    return figures


def preserved(context: TrainContext, base: Config) -> dict[str, dict[str, float]]:
    """ "REFINER, start" and "REFINER, fitted" -> changes by name and layer."""
    figures = {}
    for name, settings in REFINERS.items():
        trainer = StudentTrainer(context, base.override(settings))
        trainer.observe()
        figures[f"{name}: start"] = _changes(trainer)
        if trainer.prefit_steps:
            trainer.prefit()
            figures[f"{name}: fitted"] = _changes(trainer)
    return figures


def _changes(trainer: StudentTrainer) -> dict[str, float]:
    context, teacher = trainer.context, trainer.context.tapped_teacher([3, 4, 5])
    features = context.teacher_pass(teacher, context.pixels(next(context.batches(batch_size=64, seed=2))))
    return {
        f"{name}/{layer}": value
        for layer in (3, 5)
        for name, value in changes_of(teacher, features, layer, trainer.distiller.target).items()
    }


def main() -> int:
    """Prints both tables and writes the raw figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teachers", type=Path, default=Path("runs/refiners"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    demo = load_preset("demo")
    by_seed = {}
    for seed in (0, 1, 2):
        folder = teacher_folder(seed, given.teachers)
        by_seed[seed] = ratios(
            TrainContext(demo.override({"teacher.name": f"local-dir:{folder}/planted" if folder else "demo"}))
        )
    print("change of the next block's branches, over random directions     " + "".join(f"{r:>18}" for r in RANKS))
    for kind in ("mlp", "attention_mlp", "jacobian", "pca"):
        columns = [[by_seed[s][f"{kind} {rank}"] for s in by_seed] for rank in RANKS]
        print(f"{kind:64}" + "".join(f"{statistics.mean(c):>9.2f} +- {statistics.stdev(c):.2f} " for c in columns))
    kept = preserved(TrainContext(demo), demo)
    names = list(next(iter(kept.values())))
    print(f"{'':32}" + "".join(f"{name:>20}" for name in names))
    for refiner, changes in kept.items():
        print(f"{refiner:32}" + "".join(f"{changes[name]:>20.3f}" for name in names))
    raw = {
        "command": "python -m tests.benchmarks.linearizations",
        "versions": versions(),
        "ratios": by_seed,
        "kept": kept,
    }
    RAW.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
