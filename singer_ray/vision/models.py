"""Teachers and students by timm name, with errors that say what would work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import is_model, list_models
from torch import nn

from singer_ray.errors import UserError, nearest

DEMO_TEACHERS = {"demo": "planted", "demo-clean": "clean"}
_ASSETS = Path(__file__).parent / "demo_teacher"


@dataclass(frozen=True)
class Normalization:
    """The input scaling that a network was trained with."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [batch, 3, height, width] -> float32, per channel (x / 255 - mean) / std."""
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1) * 255
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1) * 255
        return (images.float() - mean) / std


def normalization_of(model: nn.Module) -> Normalization:
    """Mean and standard deviation from the model's timm configuration; 0.5 and 0.5 where it has none."""
    config: dict[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    return Normalization(tuple(config.get("mean") or (0.5,) * 3), tuple(config.get("std") or (0.5,) * 3))


def load_teacher(name: str, image_size: int, *, pretrained: bool = True, checkpoint: str | None = None) -> nn.Module:
    """A frozen teacher in evaluation mode.

    `name` is `demo` or `demo-clean` (the built-in ones), a timm name such as `vit_large_patch16_224.augreg_in21k`,
    `hf-hub:owner/model` or `local-dir:folder`. `checkpoint` is a file of weights to load instead of the published ones.

    Raises UserError for an unknown name, a missing folder or file, and weights that do not fit.
    """
    source = f"local-dir:{_ASSETS / DEMO_TEACHERS[name]}" if name in DEMO_TEACHERS else name
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise UserError(
            f"teacher.checkpoint {checkpoint!r} is not a file. Give the path of a .safetensors or .pth file."
        )
    model = _create(source, "teacher.name", pretrained=pretrained and checkpoint is None, num_classes=None,
                    checkpoint_path=checkpoint, img_size=image_size)  # fmt: skip
    return model.eval().requires_grad_(False)


def load_network(name: str, image_size: int | None, *, pretrained: bool = True) -> nn.Module:
    """A network to read: a name as for `load_teacher`; `image_size` None keeps the size that it was made for.

    Raises UserError as `load_teacher` does.
    """
    source = f"local-dir:{_ASSETS / DEMO_TEACHERS[name]}" if name in DEMO_TEACHERS else name
    try:
        model = _create(source, "network", pretrained=pretrained, num_classes=None, img_size=image_size)
    except UserError as error:
        raise UserError(str(error).replace(repr(source), repr(name))) from error
    return model.eval().requires_grad_(False)


def create_student(name: str, image_size: int, **architecture: float | str | None) -> nn.Module:
    """A student with fresh weights and no classification head.

    Its final norm stays in `forward_features`, before the pooling, so that patch features leave it normalised.
    `architecture` overrides the named model's own (embed_dim, depth, num_heads, patch_size, ...); None keeps it.

    Raises UserError for an unknown name and for sizes that do not fit each other.
    """
    model = _create(name, "student.name", pretrained=False, num_classes=0, img_size=image_size, fc_norm=False,
                    **architecture)  # fmt: skip
    return model.train()


def _create(name: str, knob: str, *, pretrained: bool, **arguments: Any) -> nn.Module:
    given = {key: value for key, value in arguments.items() if value is not None}
    scheme, _, path = name.partition(":")
    if scheme == "local-dir":
        if not (Path(path) / "config.json").is_file():
            raise UserError(f"{knob} {name!r}: {path}/config.json is missing. Give a folder that timm can load.")
    elif scheme != "hf-hub" and not is_model(name.partition(".")[0]):
        known = [*list_models(), *DEMO_TEACHERS]
        raise UserError(
            f"{knob} {name!r} is no timm model.{nearest(name.partition('.')[0], known)} "
            "Allowed: a timm name, hf-hub:owner/model, local-dir:folder"
            + (", demo, demo-clean." if knob != "student.name" else ".")
        )
    while True:
        try:
            model: nn.Module = timm.create_model(name, pretrained=pretrained, **given)
            return model
        except TypeError as error:
            # Families differ in the arguments that they know; `fc_norm` is only a refinement.
            if "fc_norm" in given and "fc_norm" in str(error):
                del given["fc_norm"]
                continue
            if "img_size" in given and "img_size" in str(error):
                del given["img_size"]
                continue
            raise UserError(
                f"{knob} {name!r} cannot be made with {given}: {error}. Change one of these, or give another name."
            ) from error
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"{knob} {name!r} cannot be made with {given}: {reason}. Change one of these, or give another name."
            ) from error
