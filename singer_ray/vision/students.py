"""Students by configuration: built, given what they start from, checked, and read back from what training saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from singer_ray.errors import UserError, printable
from singer_ray.vision.checkpoints import adapted, load_weights, misfit_of
from singer_ray.vision.copying import check_copy, copy_teacher
from singer_ray.vision.fitting import check_fit
from singer_ray.vision.models import Normalization, check_file, create_student, outline_student, published_weights
from singer_ray.vision.tapped import TappedViT

if TYPE_CHECKING:
    from singer_ray.config import Config

STUDENT_WEIGHTS = "student.model."
"""How the names of the student's weights begin among all that is trained."""
AVERAGE = "average"
"""Where a trainer's state has the moving average of weights."""
LayerMap = Callable[[Sequence[int], int, int], tuple[int, ...]]
"""(distilled teacher layers, teacher depth, student depth) -> a student layer for each."""


class MisfitError(UserError):
    """Saved weights that belong to another configuration; the message continues the phrase "the checkpoint"."""


def misfit(error: Exception) -> MisfitError:
    """What torch says of weights whose names or shapes are not those of a network, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[1] if len(lines) > 1 else "".join(lines) or type(error).__name__
    return MisfitError(f"is of another configuration ({printable(reason, 200).rstrip('.')})")


def build_student(config: Config, create: Callable[..., nn.Module] = create_student) -> nn.Module:
    """The student of a configuration, with fresh weights (or as `create` makes it). Raises UserError."""
    student = config.student
    return create(
        student.name,
        config.data.image_size,
        registers=student.registers,
        embed_dim=student.width,
        depth=student.depth,
        num_heads=student.heads,
        patch_size=student.patch_size,
        global_pool={"mean": "avg", "class": "token"}[config.evaluation.pooling],
        drop_path_rate=config.train.drop_path or None,
    )


def student_layers_of(
    config: Config, layers: tuple[int, ...], teacher_depth: int, depth: int, map_layers: LayerMap
) -> tuple[int, ...]:
    """The student layer that learns from each distilled one: as configured, else by `map_layers`.

    Raises UserError when two would share one.
    """
    mapped = config.student.layers or map_layers(layers, teacher_depth, depth)
    if len(set(mapped)) < len(layers):
        raise UserError(
            f"teacher.layers {list(layers)} map to student layers {list(mapped)} of {depth}: each needs "
            "its own. Distil fewer layers, or name student.layers."
        )
    return mapped


def check_student(model: Any, name: str, size: int) -> None:
    """Raises UserError for a student that cannot read images of that size, or cannot be read block by block."""
    if 0 in TappedViT(model, [0], name=name).grid(size):
        raise UserError(
            f"{name} has patches of {model.patch_embed.patch_size[0]} pixels, more than data.image_size {size}. "
            "Lower student.patch_size."
        )
    check_fit(model, name, size)


def check_start(config: Config, student: TappedViT, teacher: TappedViT) -> None:
    """Raises UserError where `start_student` could not work, as far as that is known without weights."""
    settings = config.student
    if settings.init == "copy":
        check_copy(student, teacher)
    elif settings.checkpoint is not None:
        check_file(settings.checkpoint, "student.checkpoint")
    elif settings.pretrained:
        _published(config, build_student(config, outline_student), shapes_only=True)


def start_student(config: Config, student: TappedViT, teacher: TappedViT, map_blocks: LayerMap) -> None:
    """Fills a fresh student with what it starts from: given weights, parts of the teacher, or nothing else.

    `map_blocks` says which of the teacher's blocks are copied. Raises UserError for weights that do not fit.
    """
    settings = config.student
    check_start(config, student, teacher)
    if settings.init == "copy":
        copy_teacher(student, teacher, map_blocks(range(student.depth), student.depth, teacher.depth))
    elif settings.checkpoint is not None:
        load_weights(student.model, settings.checkpoint, student.name, "student")
    elif settings.pretrained:
        student.model.load_state_dict(_published(config, student.model))
    else:
        return
    check_fit(student.model, student.name, config.data.image_size)  # some weights give no finite features


def _published(config: Config, model: Any, *, shapes_only: bool = False) -> dict[str, torch.Tensor]:
    """The published weights of the student's architecture, as `model` takes them. Raises UserError for a misfit."""
    student = config.student
    start = f"student.pretrained: what is published of {student.name}"
    advice = "Leave out the settings of student that change its size, or use --student.init copy."
    found: Any = published_weights(student.name, config.data.image_size, student.patch_size, shapes_only=shapes_only)
    heads = [network.blocks[0].attn.num_heads for network in (found, model) if hasattr(network.blocks[0], "attn")]
    if len(set(heads)) > 1:
        raise UserError(f"{start} has {heads[0]} attention heads, and the student {heads[1]}. {advice}")
    weights = found.state_dict()
    fitted = adapted(model, weights)
    problem = misfit_of(model.state_dict(), fitted, weights, f"student {student.name}", "it")
    if problem:
        raise UserError(f"{start} {problem} {advice}")
    return {name: fitted[name] for name in model.state_dict()}


def average_in(state: Mapping[str, Any]) -> Mapping[str, torch.Tensor]:
    """The moving average of weights in a trainer's state. Raises MisfitError where there is none."""
    average: Mapping[str, torch.Tensor] | None = state.get(AVERAGE)
    if average is None:
        raise misfit(KeyError("it has no average of the weights"))
    return average


def student_of(config: Config, state: Mapping[str, Any]) -> tuple[nn.Module, Normalization]:
    """A trained student, in evaluation mode on the CPU, and the input scaling that it was trained with.

    `state` has the weights of all that was trained under `distiller`, their moving average under `average` where
    `train.ema` is on, and `normalization` (mean, std). Raises MisfitError for those of another student.
    """
    model = build_student(config)
    trained = average_in(state) if config.train.ema else state["distiller"]
    weights = {
        name.removeprefix(STUDENT_WEIGHTS): weight
        for name, weight in trained.items()
        if name.startswith(STUDENT_WEIGHTS)
    }
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise misfit(error) from error
    scaling = state["normalization"]
    return model.eval(), Normalization(tuple(scaling["mean"]), tuple(scaling["std"]))
