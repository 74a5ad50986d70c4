"""Teacher wrappers, which stand between the frozen teacher and all that reads its features (see README.md).

Each is a folder here, found by its name. This file and every `settings.py` are below the configuration, which is made
from them: no torch here.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from singer_ray.method.wrappers.description import WrapperDescription


def names() -> list[str]:
    """The folders: what `method.wrapper` may be, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)


@functools.cache
def described() -> dict[str, WrapperDescription]:
    """Each wrapper's description, by its name; `none` first."""
    descriptions = {name: importlib.import_module(f"{__name__}.{name}.settings").DESCRIPTION for name in names()}
    return dict(sorted(descriptions.items(), key=lambda item: item[0] != "none"))
