"""Refiners by the name that `method.refiner` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from singer_ray.method.refiners.base import Refiner
from singer_ray.method.refiners.clip import Clip, QuantileClip
from singer_ray.method.refiners.layernorm import NormalizedTargets
from singer_ray.method.refiners.singer import PaperSinger, Singer
from singer_ray.method.refiners.singer_official import OfficialSinger
from singer_ray.method.refiners.vitkd import ViTKD

if TYPE_CHECKING:
    from singer_ray.config import MethodConfig

REFINERS: dict[str, type[Refiner]] = {
    "singer": Singer,
    "none": Refiner,
    "vitkd": ViTKD,
    "clip": Clip,
    "layernorm": NormalizedTargets,
    "quantile_clip": QuantileClip,
}
VARIANTS: dict[str, type[Refiner]] = {"recommended": Singer, "paper": PaperSinger, "official": OfficialSinger}
"""Of the refiner singer."""


def refiner_class(method: MethodConfig) -> type[Refiner]:
    """The class that `method.refiner` and `method.variant` name."""
    return VARIANTS[method.variant] if method.refiner == "singer" else REFINERS[method.refiner]
