"""Plain feature distillation (FitNet): the teacher's features as they are."""

from __future__ import annotations

from singer_ray.method.refiners.base import Refiner

REFINER = Refiner
