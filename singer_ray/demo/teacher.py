"""A small teacher from scratch: trained, and if asked for with artifacts planted in it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import timm
import torch
from torch import nn
from torchmetrics.functional.classification import multiclass_accuracy

from singer_ray.data.loader import evaluation_batches
from singer_ray.data.scenes import Scenes
from singer_ray.data.source import Source, shuffled_subset
from singer_ray.data.splits import open_splits
from singer_ray.data.views import EvaluationView, derive
from singer_ray.demo.planting import plant_artifacts
from singer_ray.demo.supervised import SupervisedTeacher, fit_supervised
from singer_ray.errors import UserError, printable
from singer_ray.evaluation.patch_targets import patch_classes
from singer_ray.layout import CLEAN, PLANTED, RESULT
from singer_ray.method.artifacts import max_median_ratio, patch_norms
from singer_ray.publishing.package import InputSpec, write_model
from singer_ray.publishing.result import versions, write_json
from singer_ray.training.context import pick_device
from singer_ray.training.progress import step_progress
from singer_ray.vision.fitting import check_fit
from singer_ray.vision.models import normalization_of
from singer_ray.vision.tapped import TappedViT

if TYPE_CHECKING:
    from rich.console import Console

    from singer_ray.config import Config, TeacherRecipe

ARCHITECTURE = "vit_tiny_patch16_224"
PLANTING_IMAGES = 512
NORM_IMAGES = 512


def make_teacher(
    config: Config, recipe: TeacherRecipe, make_out: Callable[[], Path], console: Console | None = None
) -> Path:
    """Trains on `config.data` by `recipe` and writes clean/, planted/ and result.json into the folder of `make_out`.

    `console` shows how far it is. Raises UserError when the source has no labels, has no masks to plant
    by, or the sizes do not fit.
    """
    device = pick_device(config.train.device)
    torch.set_num_threads(config.train.threads)
    splits = _open(config, recipe)
    source = splits["train"]
    size = config.data.image_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(config.seed, 0))
        model = _create(len(source.classes), recipe, size)
        teacher = SupervisedTeacher(model, source)
    out = make_out()
    begin = time.perf_counter()
    _fit("training", teacher, source, recipe.steps, recipe.lr, recipe.weight_decay, config, recipe, device, console)
    inputs = InputSpec(size, config.data.crop_pct, normalization_of(model))
    metrics = _report("clean", model, splits, inputs, device)
    write_model(out / CLEAN, model, inputs)
    if recipe.plant:
        planted = copy.deepcopy(teacher)
        plant(planted, source, config, recipe, device, console)
        metrics |= _report("planted", planted.model, splits, inputs, device)
        write_model(out / PLANTED, planted.model, inputs)
    write_json(
        out / RESULT,
        {
            "metrics": metrics,
            "config": config.model_dump(mode="json"),
            "recipe": {name: getattr(recipe, name) for name in type(recipe).__dataclass_fields__ if name not in _IO},
            "versions": versions(),
            "seconds": round(time.perf_counter() - begin, 1),
        },
    )
    return out


def check_recipe(config: Config, recipe: TeacherRecipe) -> None:
    """Raises UserError for whatever `make_teacher` would refuse before its first step."""
    pick_device(config.train.device)
    source = _open(config, recipe)["train"]
    with torch.device("meta"):
        model = _create(len(source.classes), recipe, config.data.image_size)
    check_fit(model, "the teacher", config.data.image_size)


def plant(
    teacher: SupervisedTeacher,
    source: Source,
    config: Config,
    recipe: TeacherRecipe,
    device: torch.device,
    console: Console | None = None,
) -> None:
    """Plants artifacts in a teacher by `recipe`, and fine-tunes what lies behind them so that they do no harm."""
    size, model = config.data.image_size, teacher.model
    view = EvaluationView(size, config.data.crop_pct)
    batch = next(evaluation_batches(source, view, batch_size=PLANTING_IMAGES))
    ground = patch_classes(batch["mask"], TappedViT(model, [0]).grid(size), len(source.mask_classes)) == 0
    plant_artifacts(
        model.cpu().eval(),
        normalization_of(model)(batch["image"]),
        ground,
        config.seed,
        units=recipe.plant_units,
        share=recipe.plant_share,
        number=recipe.plant_block,
    )
    _fit("hiding artifacts", teacher, source, recipe.plant_steps, recipe.plant_lr, 0.0, config, recipe, device, console)


_IO = ("out", "overwrite", "dry_run", "given")


def _open(config: Config, recipe: TeacherRecipe) -> dict[str, Source]:
    splits = open_splits(config.data)
    if isinstance(splits["train"], Scenes):
        splits["train"] = Scenes("train", recipe.scenes, derive(config.data.scenes.seed, config.seed))
    _check(splits["train"], recipe, config)
    return splits


def _check(source: Source, recipe: TeacherRecipe, config: Config) -> None:
    if "label" not in source.fields:
        raise UserError(
            f"data.train {config.data.train!r} has no labels, and a teacher is trained on labels. "
            "Put the images into one folder a class."
        )
    if len(source.classes) < 2:
        raise UserError(
            f"data.train {config.data.train!r} has one class only, {printable(source.classes[0])!r}, and a teacher is "
            "trained to tell classes apart. Give a folder with one folder per class, two or more."
        )
    if recipe.plant and ("mask" not in source.fields or not 0 <= recipe.plant_block < recipe.depth - 1):
        raise UserError(
            f"--plant needs masks and a block behind --plant-block {recipe.plant_block}; data.source "
            f"{config.data.source} with --depth {recipe.depth} does not offer that. Use --data.source scenes, "
            "--depth 6 and --plant-block 2, or leave --plant out."
        )
    if not 0 < recipe.plant_share < 1 or not 0 < recipe.plant_units <= recipe.width // 2:
        raise UserError(
            f"--plant-share is {recipe.plant_share} and --plant-units {recipe.plant_units}. Allowed: a share between 0 "
            f"and 1, and 1 to {recipe.width // 2} units (half of --width)."
        )
    if recipe.width % recipe.heads or config.data.image_size % recipe.patch_size:
        raise UserError(
            f"--width {recipe.width} must be a multiple of --heads {recipe.heads}, and data.image_size "
            f"{config.data.image_size} one of --patch-size {recipe.patch_size}. Choose other sizes."
        )


def _create(classes: int, recipe: TeacherRecipe, size: int) -> nn.Module:
    model: nn.Module = timm.create_model(
        ARCHITECTURE,
        img_size=size,
        patch_size=recipe.patch_size,
        embed_dim=recipe.width,
        depth=recipe.depth,
        num_heads=recipe.heads,
        num_classes=classes,
        global_pool="avg",
    )
    # timm's default of 0.02 is made for widths of hundreds: at 64 it starts so small that training takes much longer.
    model.init_weights("jax")  # type: ignore[operator]
    return model


def _fit(
    what: str,
    teacher: SupervisedTeacher,
    source: Source,
    steps: int,
    lr: float,
    weight_decay: float,
    config: Config,
    recipe: TeacherRecipe,
    device: torch.device,
    console: Console | None = None,
) -> None:
    with step_progress(what, steps, console) as advance:
        fit_supervised(
            teacher,
            source,
            steps=steps,
            batch_size=recipe.batch_size,
            lr=lr,
            weight_decay=weight_decay,
            seed=derive(config.seed, 1),
            size=config.data.image_size,
            device=device,
            progress=advance,
        )


@torch.no_grad()
def _report(
    name: str, model: nn.Module, splits: dict[str, Source], inputs: InputSpec, device: torch.device
) -> dict[str, float]:
    """Accuracy on validation and test, and the largest over median patch norm behind each block."""
    view = EvaluationView(inputs.size, inputs.crop_pct)
    model.to(device).eval()
    metrics = {}
    for split in ("val", "test"):
        if split not in splits or "label" not in splits[split].fields:
            continue
        guesses, labels = [], []
        for batch in evaluation_batches(splits[split], view, batch_size=128):
            guesses.append(model(inputs.normalization(batch["image"].to(device))).argmax(dim=1).cpu())
            labels.append(batch["label"])
        classes = len(splits[split].classes)
        accuracy = multiclass_accuracy(torch.cat(guesses), torch.cat(labels), classes, average="micro")
        metrics[f"{name}/{split}/top1"] = round(float(accuracy), 4)
    tapped = TappedViT(model, range(len(TappedViT(model, [0]).blocks)))
    source = shuffled_subset(splits.get("val", splits["train"]), NORM_IMAGES)
    batch = next(evaluation_batches(source, view, batch_size=NORM_IMAGES))
    for layer, tokens in tapped(inputs.normalization(batch["image"].to(device))).tokens.items():
        ratio = max_median_ratio(patch_norms(tokens[:, tapped.prefix :])).mean()
        metrics[f"{name}/max_median_norm/{layer}"] = round(float(ratio), 2)
    return metrics
