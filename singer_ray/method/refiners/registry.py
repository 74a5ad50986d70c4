"""The classes of the refiners, by the name that `method.refiner` takes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from singer_ray.method import refiners
from singer_ray.method.refiners.base import Refiner

if TYPE_CHECKING:
    from singer_ray.config import MethodConfig

_MODULES = {name: importlib.import_module(f"{refiners.__name__}.{name}.refiner") for name in refiners.names()}
REFINERS: dict[str, type[Refiner]] = {name: module.REFINER for name, module in _MODULES.items()}
VARIANTS: dict[str, dict[str, type[Refiner]]] = {
    name: module.VARIANTS for name, module in _MODULES.items() if hasattr(module, "VARIANTS")
}
"""Of refiners that have several: `method.variant` -> class."""


def refiner_class(method: MethodConfig) -> type[Refiner]:
    """The class that `method.refiner` and, where it has variants, `method.variant` name."""
    if method.refiner in VARIANTS:
        return VARIANTS[method.refiner][method.variant]
    return REFINERS[method.refiner]
