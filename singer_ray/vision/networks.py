"""Networks to evaluate: found by name or folder, with the input that each was made for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from timm.models import is_model
from torch import nn

from singer_ray.errors import UserError
from singer_ray.layout import BEST, MODEL_CONFIG, STUDENT
from singer_ray.vision.fitting import check_fit
from singer_ray.vision.models import DEMO_TEACHERS, Normalization, load_network, normalization_of
from singer_ray.vision.tapped import TappedViT

"""Where a run keeps its student."""


@dataclass(frozen=True)
class Network:
    """A frozen network with its own input scaling, size and crop."""

    name: str
    tapped: TappedViT
    """Read at its last layer."""
    normalize: Normalization
    image_size: int
    crop_pct: float
    grid: tuple[int, int]

    @property
    def covered(self) -> tuple[int, int]:
        """Height and width of the image, in pixels, that the grid covers."""
        return self.tapped.covered(self.image_size)

    @property
    def parameters(self) -> int:
        """How many weights it has, without a classification head."""
        head = getattr(self.tapped.model, "head", None)
        dropped = sum(p.numel() for p in head.parameters()) if isinstance(head, nn.Module) else 0
        return sum(p.numel() for p in self.tapped.parameters()) - dropped


def open_network(
    name: str, *, image_size: int | None = None, crop_pct: float | None = None, pretrained: bool = True
) -> Network:
    """The network that `name` means: `demo`, `demo-clean`, a timm name, `hf-hub:OWNER/MODEL`, `local-dir:FOLDER`, a
    folder with config.json, or the folder of a run (with student/ inside).

    A built-in or timm name comes before a folder of the same name (write ./NAME for that). `image_size` and `crop_pct`
    replace what the network was made for. `pretrained` False gives published networks random weights; a folder's
    weights are always loaded.

    Raises UserError when there is no such network, it has no blocks, or it cannot read images of that size.
    """
    source = find_network(name)
    model = load_network(source, image_size, pretrained=pretrained or has_own_weights(source))
    return network_of(name, model, image_size, crop_pct)


def has_own_weights(source: str) -> bool:
    """Whether weights come with it (built-in, or a folder) rather than from a registry."""
    return source in DEMO_TEACHERS or source.startswith("local-dir:")


def find_network(name: str) -> str:
    """What timm (or the built-in list) calls the network that `name` means. Raises UserError for a useless folder."""
    folder = Path(name.removeprefix("local-dir:"))
    known = name in DEMO_TEACHERS or name.startswith("hf-hub:") or is_model(name.partition(".")[0])
    if known or not (folder.exists() or name.startswith("local-dir:") or "/" in name):
        return name
    for place in (folder, folder / STUDENT):
        if (place / MODEL_CONFIG).is_file():
            return f"local-dir:{place}"
    best = sorted(p.parent.name for p in folder.glob(f"{BEST}/*/{MODEL_CONFIG}"))
    advice = (
        f"It is a search: name one of its students, {folder}/{BEST}/{best[0]}" if best else "Give an exported folder"
    )
    what = "has neither config.json nor student/config.json" if folder.is_dir() else "is not a folder"
    raise UserError(f"network {name!r} {what}. {advice}, a run's folder, a timm name, or hf-hub:OWNER/MODEL.")


def network_of(name: str, model: nn.Module, image_size: int | None = None, crop_pct: float | None = None) -> Network:
    """A module as a network. Raises UserError when it has no blocks or cannot read images of that size."""
    depth = len(TappedViT(model, [0], name=f"network {name}").blocks)
    tapped = TappedViT(model, [depth - 1], name=f"network {name}").eval()
    made_for: dict[str, Any] = timm.data.resolve_model_data_config(model)
    _, height, width = made_for["input_size"]
    if image_size is None and height != width:
        raise UserError(
            f"network {name} reads {height} x {width} images; only squares are evaluated. Give --data.image_size."
        )
    size = image_size or int(height)
    grid = check_fit(model, f"network {name}", size)
    return Network(
        name,
        tapped,
        normalization_of(model),
        size,
        float(made_for["crop_pct"]) if crop_pct is None else crop_pct,
        grid,
    )
