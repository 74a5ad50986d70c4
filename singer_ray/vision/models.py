"""Teachers and students by timm name, with errors that say what would work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import is_model, list_models, list_pretrained
from torch import nn

from singer_ray.errors import UserError, nearest, printable
from singer_ray.layout import MODEL_CONFIG
from singer_ray.vision.checkpoints import in_one_line, load_weights
from singer_ray.vision.fitting import check_fit

DEMO_TEACHERS = {"demo": "planted", "demo-clean": "clean"}
_PLACES = ("url", "hf_hub_id", "file", "state_dict")
"""Where timm may say that weights are published."""
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

    Raises UserError for an unknown name, a missing folder or file, an architecture that cannot be read block by block
    (before anything is fetched), and weights that do not fit.
    """
    if checkpoint is not None:
        _check_file(checkpoint)
        model = _create(_source(name), "teacher.name", pretrained=False, num_classes=0, img_size=image_size)
        load_weights(model, checkpoint, name)
        return model.eval().requires_grad_(False)
    return _load(name, "teacher.name", image_size, pretrained=pretrained)


def load_network(name: str, image_size: int | None, *, pretrained: bool = True) -> nn.Module:
    """A network to read: a name as for `load_teacher`; `image_size` None keeps the size that it was made for.

    Raises UserError as `load_teacher` does.
    """
    try:
        return _load(name, "network", image_size, pretrained=pretrained)
    except UserError as error:
        raise UserError(str(error).replace(repr(_source(name)), repr(name))) from error


def outline(
    name: str, setting: str, image_size: int | None, *, pretrained: bool = False, checkpoint: str | None = None
) -> nn.Module:
    """The architecture that `name` means, on the meta device: no weights, no memory, nothing fetched but a config.json.

    With `pretrained` it must also have weights that could be fetched; a `checkpoint` must be a file. Raises UserError.
    """
    if checkpoint is not None:
        _check_file(checkpoint)
    if pretrained and checkpoint is None and name.startswith("local-dir:"):
        _check_weights(name, setting)
    with torch.device("meta"):
        model = _create(_source(name), setting, pretrained=False, img_size=image_size)
    published: dict[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    if pretrained and checkpoint is None and _fetched(name) and not any(published.get(key) for key in _PLACES):
        raise UserError(
            f"{setting} {name!r} has no published weights. Give a file with --teacher.checkpoint, or name one that "
            "has: "
            f"{', '.join(list_pretrained(name.partition('.')[0] + '.*')[:5]) or 'timm.list_pretrained() lists them'}."
        )
    return model


def outline_student(name: str, image_size: int, **architecture: float | str | None) -> nn.Module:
    """What `create_student` would make, on the meta device. Raises UserError as that does."""
    with torch.device("meta"):
        return create_student(name, image_size, **architecture)


def create_student(name: str, image_size: int, **architecture: float | str | None) -> nn.Module:
    """A student with fresh weights and no classification head.

    Its final norm stays in `forward_features`, before the pooling, so that patch features leave it normalised.
    `architecture` overrides the named model's own (embed_dim, depth, num_heads, patch_size, ...); None keeps it.

    Raises UserError for an unknown name and for sizes that do not fit each other.
    """
    model = _create(
        name, "student.name", pretrained=False, num_classes=0, img_size=image_size, fc_norm=False, **architecture
    )
    return model.train()


def _source(name: str) -> str:
    return f"local-dir:{_ASSETS / DEMO_TEACHERS[name]}" if name in DEMO_TEACHERS else name


def _fetched(name: str) -> bool:
    """Whether weights come from a registry."""
    return name not in DEMO_TEACHERS and not name.startswith("local-dir:")


def _load(name: str, setting: str, image_size: int | None, *, pretrained: bool) -> nn.Module:
    if pretrained and _fetched(name):  # gigabytes may follow: whether the blocks can be read is known before
        what = f"{setting.partition('.')[0]} {name}"
        model = outline(name, setting, image_size, pretrained=True)
        made_for: dict[str, Any] = timm.data.resolve_model_data_config(model)
        check_fit(model, what, image_size or int(made_for["input_size"][1]))
    model = _create(_source(name), setting, pretrained=pretrained, num_classes=None, img_size=image_size)
    return model.eval().requires_grad_(False)


def _check_file(checkpoint: str) -> None:
    if not Path(checkpoint).is_file():
        raise UserError(
            f"teacher.checkpoint {checkpoint!r} is not a file. Give the path of a .safetensors or .pth file."
        )


def _check_weights(name: str, setting: str) -> None:
    folder = Path(name.removeprefix("local-dir:"))
    if folder.is_dir() and not any(p.suffix in (".safetensors", ".bin", ".pth", ".pt") for p in folder.iterdir()):
        raise UserError(f"{setting} {name!r} has no weights beside its config.json. Give a folder that timm can load.")


def _check_name(name: str, setting: str) -> None:
    scheme, _, path = name.partition(":")
    architecture, _, tag = name.partition(".")
    if scheme == "local-dir":
        if not (Path(path) / MODEL_CONFIG).is_file():
            raise UserError(f"{setting} {name!r}: {path}/config.json is missing. Give a folder that timm can load.")
    elif scheme == "hf-hub":
        return
    elif not is_model(architecture):
        known = [*list_models(), *DEMO_TEACHERS]
        raise UserError(
            f"{setting} {name!r} is not a timm model.{nearest(architecture, known)} "
            "Allowed: a timm name, hf-hub:owner/model, local-dir:folder"
            + (", demo, demo-clean." if setting != "student.name" else ".")
        )
    elif tag and tag not in (tags := [known.partition(".")[2] for known in list_pretrained(f"{architecture}.*")]):
        raise UserError(
            f"{setting} {name!r}: timm has no weights {tag!r} for {architecture}.{nearest(tag, tags)} "
            f"Allowed: {', '.join(tags) or f'{architecture} alone'}."
        )


def _create(name: str, setting: str, *, pretrained: bool, **arguments: Any) -> nn.Module:
    _check_name(name, setting)
    given = {key: value for key, value in arguments.items() if value is not None}
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
                f"{setting} {name!r} cannot be made with {given}: {printable(error)}. Change one of these, or give "
                "another name."
            ) from error
        except Exception as error:
            raise UserError(
                f"{setting} {name!r} cannot be made with {given}: {in_one_line(error)}. Change one of these, or give "
                "another name."
            ) from error
