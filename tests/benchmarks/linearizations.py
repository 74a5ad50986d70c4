"""What the next block notices: of perturbations in the directions that each linearisation picks, and of each refiner.

    python -m tests.benchmarks.linearizations --teachers runs/refiners          (about 5 minutes on one core)

First table: relative change of the next block's branches under a random perturbation within the chosen directions, as a
ratio to one within random directions of the same rank and size (layer 3 of the teachers of seeds 0 to 2). Second: what
each refiner changes at its start and after its fit (200 steps; seed 0). Raw figures: linearizations.json.

    python -m tests.benchmarks.linearizations --artifacts                       (about 4 minutes on one core)

Which artifact directions does the next block read, and does choosing by it help? In the shipped demonstration teacher
and a planted one (15 % artifacts in 8 directions, made as in severity.py) each direction is taken out alone, fully or
by a tenth; the change of the next block's branches is set against that under the same step, token by token, along
random directions outside their span. The last block stands in for its own next one, as in SiNGER. Then students (300
steps, seed 0) learn from the planted teacher with all directions taken out, with the half that is read least, with the
half that is read most, and with none. Writes artifact_directions.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from singer_ray.config import Config, TeacherRecipe, load_preset
from singer_ray.data.scenes import Scenes
from singer_ray.data.views import derive
from singer_ray.demo.supervised import SupervisedTeacher
from singer_ray.demo.teacher import plant
from singer_ray.evaluation.preservation import changes_of
from singer_ray.method.nullspace import (
    jacobian_matrix,
    linearized_block,
    mlp_matrix,
    null_directions,
    principal_directions,
    random_directions,
)
from singer_ray.method.refiners.singer import adapter
from singer_ray.method.spectral import ArtifactDirections, artifact_directions
from singer_ray.publishing.result import versions
from singer_ray.training.context import TrainContext
from singer_ray.training.trainer import CALIBRATION_IMAGES, StudentTrainer
from singer_ray.vision.models import load_teacher
from singer_ray.vision.tapped import Features, TappedViT
from tests.benchmarks.acceptance import teacher_folder
from tests.benchmarks.children import write_raw
from tests.benchmarks.together import train_together

RAW = Path(__file__).with_name("linearizations.json")
RANKS, LAYER, DRAWS, SIZE = (4, 16, 32), 3, 8, 0.03
RAW_ARTIFACTS = Path(__file__).with_name("artifact_directions.json")
DISTILLED, PARTS, RANDOM = (3, 5), (1.0, 0.1), 4
"""Layers, the parts of a direction that are taken out, and random directions that it is compared with."""
PLANTED = TeacherRecipe(plant=True, plant_units=8, plant_share=0.15, plant_block=1)
PLANTING, MOST = 14, 16
Rows = list[dict[str, float]]
"""A row of figures for each artifact direction, by falling energy."""
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


def artifacts(demo: Config) -> None:
    """Prints and writes what the next block reads of artifact directions, and what choosing by it does to students."""
    planted = TrainContext(demo, teacher=_planted_teacher(demo))
    contexts = {"demo": TrainContext(demo), "8 directions": planted}
    null = {teacher: exactly_null(context) for teacher, context in contexts.items()}
    print("steps that a pre-norm block does not see:", null)
    by_teacher = {teacher: reads(context) for teacher, context in contexts.items()}
    for teacher, layers in by_teacher.items():
        for layer, rows in layers.items():
            for number, row in enumerate(rows):
                figures = "  ".join(f"{name} {value:.3f}" for name, value in row.items())
                print(f"{teacher}, layer {layer}, direction {number}: {figures}", flush=True)
    learned = students(planted, by_teacher["8 directions"])
    for name, metrics in learned.items():
        print(f"{name:40} test mIoU {metrics['test/miou']:.3f}")
    write_raw(
        RAW_ARTIFACTS,
        "tests.benchmarks.linearizations --artifacts",
        {"null": null, "reads": by_teacher, "students": learned},
    )


def _planted_teacher(demo: Config) -> torch.nn.Module:
    source = Scenes("train", PLANTED.scenes, derive(demo.data.scenes.seed, PLANTING))
    torch.manual_seed(PLANTING)
    clean = load_teacher("demo-clean", demo.data.image_size).requires_grad_(True)
    teacher = SupervisedTeacher(clean, source)
    plant(teacher, source, demo.override({"seed": PLANTING}), PLANTED, torch.device("cpu"))
    model: torch.nn.Module = teacher.model
    return model


def _observed(context: TrainContext) -> tuple[TappedViT, Features]:
    """The teacher, and its features of the images that directions are found in."""
    seed, depth = context.config.seed, context.last_teacher.depth
    teacher = context.tapped_teacher(sorted({min(n + more, depth - 1) for n in DISTILLED for more in (0, 1)}))
    batch = next(context.batches(batch_size=CALIBRATION_IMAGES, seed=seed, view_seed=seed))
    return teacher, context.teacher_pass(teacher, context.pixels(batch))


def exactly_null(context: TrainContext) -> dict[int, dict[str, float]]:
    """Layer -> change of the branches when a constant as long as each token is added, and when each token is halved."""
    teacher, features = _observed(context)
    figures = {}
    for layer in DISTILLED:
        every = features.tokens[layer][:, teacher.prefix :]
        constant = every.norm(dim=-1, keepdim=True).expand_as(every) / every.shape[-1] ** 0.5
        steps = {"constant added": constant, "halved": -every / 2}
        figures[layer] = {name: _branch_change(teacher, features, layer, step) for name, step in steps.items()}
    return figures


def reads(context: TrainContext) -> dict[int, Rows]:
    """Layer -> how the next block's branches react to the removal of each artifact direction."""
    teacher, features = _observed(context)
    generator = torch.Generator().manual_seed(0)
    return {layer: _reads(teacher, features, layer, generator) for layer in DISTILLED}


def _reads(teacher: TappedViT, features: Features, layer: int, generator: torch.Generator) -> Rows:
    patches = features.tokens[layer][:, teacher.prefix :]
    found = artifact_directions(patches, MOST)
    random = torch.randn(RANDOM, patches.shape[-1], generator=generator)
    random = torch.nn.functional.normalize(random - random @ found.basis @ found.basis.mT, dim=-1)
    rows = []
    for axis in found.basis.mT:
        along = ((patches - found.centre) @ axis)[..., None]
        row = {"energy": float(along.square().sum() / (patches - found.centre).square().sum())}
        for part in PARTS:
            change = _branch_change(teacher, features, layer, -part * along * axis)
            others = [_branch_change(teacher, features, layer, -part * along * other) for other in random]
            row |= {f"change/{part:g}": change, f"over_random/{part:g}": change / statistics.mean(others)}
        rows.append(row)
    return rows


@torch.no_grad()
def _branch_change(teacher: TappedViT, features: Features, layer: int, step: torch.Tensor) -> float:
    """Relative change of the branches of the block that reads `layer` when `step` is added to the patches."""
    block, original = min(layer + 1, teacher.depth - 1), features.tokens[layer]
    moved = original.clone()
    moved[:, teacher.prefix :] += step
    before, after = (
        (teacher.replay(block, tokens, features) - tokens)[:, teacher.prefix :] for tokens in (original, moved)
    )
    return float((after - before).norm() / before.norm())


def students(context: TrainContext, by_layer: dict[int, Rows]) -> dict[str, dict[str, float]]:
    """Metrics of the students, by what is taken out of the teacher's features."""
    least_first = {n: sorted(range(len(rows)), key=lambda i: rows[i]["change/1"]) for n, rows in by_layer.items()}
    chosen = {
        "all": least_first,
        "read least": {n: order[: len(order) // 2] for n, order in least_first.items()},
        "read most": {n: order[len(order) // 2 :] for n, order in least_first.items()},
    }
    picks = iter([columns[n] for columns in chosen.values() for n in DISTILLED])
    configs = dict.fromkeys(chosen, context.config) | {"none": context.config.override({"method.refiner": "none"})}
    with _taking_out(picks):
        return train_together(context, configs, what="students")


@contextmanager
def _taking_out(picks: Iterator[list[int]]) -> Iterator[None]:
    """While inside, each search for directions leaves the adapter with the next pick of what it has found."""

    def some(patches: torch.Tensor, most: int) -> ArtifactDirections:
        found = artifact_directions(patches, most)
        return replace(found, basis=found.basis[:, next(picks)])

    with mock.patch.object(adapter, "artifact_directions", some):
        yield


def main() -> int:
    """Prints both tables and writes the raw figures; or those of the artifacts' directions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teachers", type=Path, default=Path("runs/refiners"))
    parser.add_argument("--artifacts", action="store_true", help="the directions of artifacts instead")
    given = parser.parse_args()
    torch.set_num_threads(1)
    demo = load_preset("demo")
    if given.artifacts:
        artifacts(demo)
        return 0
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
