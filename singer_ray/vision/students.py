"""Students by configuration: built with fresh weights, checked, and read back from what training saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from singer_ray.errors import UserError, printable
from singer_ray.vision.fitting import check_fit
from singer_ray.vision.models import Normalization, create_student
from singer_ray.vision.tapped import TappedViT

if TYPE_CHECKING:
    from singer_ray.config import Config

STUDENT_WEIGHTS = "student.model."
"""How the names of the student's weights begin among all that is trained."""
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


def student_of(config: Config, state: Mapping[str, Any]) -> tuple[nn.Module, Normalization]:
    """A trained student, in evaluation mode on the CPU, and the input scaling that it was trained with.

    `state` has the weights of all that was trained under `distiller`, and `normalization` (mean, std). Raises
    MisfitError for those of another student.
    """
    model = build_student(config)
    weights = {
        name.removeprefix(STUDENT_WEIGHTS): weight
        for name, weight in state["distiller"].items()
        if name.startswith(STUDENT_WEIGHTS)
    }
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise misfit(error) from error
    scaling = state["normalization"]
    return model.eval(), Normalization(tuple(scaling["mean"]), tuple(scaling["std"]))
