"""SiNGER and its variants."""

from __future__ import annotations

from singer_ray.method.refiners.base import Refiner
from singer_ray.method.refiners.singer.adapter import PaperSinger, Singer
from singer_ray.method.refiners.singer.official import OfficialSinger

REFINER = Singer
VARIANTS: dict[str, type[Refiner]] = {"recommended": Singer, "paper": PaperSinger, "official": OfficialSinger}
