"""Refiners by the name that `method.refiner` takes."""

from __future__ import annotations

from singer_ray.method.refiners.base import Refiner
from singer_ray.method.refiners.singer import Singer

REFINERS: dict[str, type[Refiner]] = {"singer": Singer, "none": Refiner}
