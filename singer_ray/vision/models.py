"""Teachers and students by timm name, with errors that say what would work."""

from __future__ import annotations

import contextlib
import inspect
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
_REGISTERS = ("reg_tokens", "num_reg_tokens")
"""What timm's classes call their number of register tokens."""
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
        check_file(checkpoint, "teacher.checkpoint")
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
        check_file(checkpoint, f"{setting.partition('.')[0]}.checkpoint")
    if pretrained and checkpoint is None and name.startswith("local-dir:"):
        _check_weights(name, setting)
    with torch.device("meta"):
        model = _create(_source(name), setting, pretrained=False, img_size=image_size)
    published: dict[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    if pretrained and checkpoint is None and _fetched(name) and not any(published.get(key) for key in _PLACES):
        raise UserError(
            f"{setting} {name!r} has no published weights. Give a file with "
            f"--{setting.partition('.')[0]}.checkpoint, or name one that has: "
            f"{', '.join(list_pretrained(name.partition('.')[0] + '.*')[:5]) or 'timm.list_pretrained() lists them'}."
        )
    return model


def outline_student(name: str, image_size: int, *, registers: int = 0, **architecture: float | str | None) -> nn.Module:
    """What `create_student` would make, on the meta device. Raises UserError as that does."""
    with torch.device("meta"):
        return create_student(name, image_size, registers=registers, **architecture)


def create_student(name: str, image_size: int, *, registers: int = 0, **architecture: float | str | None) -> nn.Module:
    """A student with fresh weights and no classification head.

    Its final norm stays in `forward_features`, before the pooling, so that patch features leave it normalised.
    `architecture` overrides the named model's own (embed_dim, depth, num_heads, patch_size, ...); None keeps it, and so
    do 0 `registers`.

    Raises UserError for an unknown name, for sizes that do not fit each other, and for registers where there can be
    none.
    """
    if registers:
        architecture = {**architecture, _register_argument(name, registers): registers}
    model = _create(
        name, "student.name", pretrained=False, num_classes=0, img_size=image_size, fc_norm=False, **architecture
    )
    return model.train()


def published_weights(name: str, image_size: int, patch_size: int | None, *, shapes_only: bool = False) -> nn.Module:
    """The network that `name` means with its published weights, resampled by timm to this image and patch size.

    With `shapes_only` it is on the meta device, and nothing is fetched. Raises UserError where there are none.
    """
    outline(name, "student.name", None, pretrained=True)
    with torch.device("meta") if shapes_only else contextlib.nullcontext():
        return _create(
            name,
            "student.name",
            pretrained=not shapes_only,
            num_classes=0,
            img_size=image_size,
            patch_size=patch_size,
        )


def _register_argument(name: str, registers: int) -> str:
    """What the class of a timm architecture calls its number of register tokens. Raises UserError."""
    with torch.device("meta"):
        kind = type(_create(name, "student.name", pretrained=False))
    known = inspect.signature(kind).parameters
    found = [argument for argument in _REGISTERS if argument in known]
    if not found:
        raise UserError(
            f"student.registers is {registers}, but {name} ({kind.__name__}) cannot have register tokens. Name a "
            "student of the vit, deit3, eva, dinov2 or dinov3 families, or leave student.registers out."
        )
    return found[0]


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


def check_file(checkpoint: str, setting: str) -> None:
    """Raises UserError where the file of weights that `setting` names is not there."""
    if not Path(checkpoint).is_file():
        raise UserError(f"{setting} {checkpoint!r} is not a file. Give the path of a .safetensors or .pth file.")


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
