"""Refiners, ways to clean the teacher's features: each is a folder here, found by its name (see README.md).

This file and every `settings.py` are below the configuration, which is made from them: no torch here.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from singer_ray.method.refiners.description import Description


def names() -> list[str]:
    """The folders: what `method.refiner` may be, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)


@functools.cache
def described() -> dict[str, Description]:
    """Each refiner's description, in the order in which messages list them."""
    descriptions = {name: importlib.import_module(f"{__name__}.{name}.settings").DESCRIPTION for name in names()}
    return dict(sorted(descriptions.items(), key=lambda item: item[1].place))
