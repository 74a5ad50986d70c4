"""The classes of the teacher wrappers, by the name that `method.wrapper` takes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from singer_ray.errors import UserError
from singer_ray.method import wrappers
from singer_ray.method.refiners.registry import refiner_class
from singer_ray.method.wrappers.base import TeacherWrapper

if TYPE_CHECKING:
    from singer_ray.config import MethodConfig
    from singer_ray.vision.tapped import TappedViT

WRAPPERS: dict[str, type[TeacherWrapper]] = {
    name: importlib.import_module(f"{wrappers.__name__}.{name}.wrapper").WRAPPER for name in wrappers.described()
}


def wrapper_class(method: MethodConfig) -> type[TeacherWrapper]:
    """The class that `method.wrapper` names."""
    return WRAPPERS[method.wrapper]


def check_wrapper(teacher: TappedViT, method: MethodConfig, size: int) -> None:
    """Raises UserError when the wrapper cannot stand before this teacher, or not together with the refiner."""
    kind = wrapper_class(method)
    kind.check(teacher, method, size)
    if not kind.replays and refiner_class(method).replays(method):
        raise UserError(
            f"method.refiner {method.refiner} is fitted by what the next block makes of its features, but "
            f"method.wrapper {method.wrapper} gives features that no single pass has. Use --method.wrapper registers, "
            "or a refiner that is not fitted."
        )


def wrapped(teacher: TappedViT, method: MethodConfig, *, size: int, seed: int) -> TeacherWrapper:
    """The teacher as `method.wrapper` reads it. Raises UserError where `check_wrapper` does."""
    check_wrapper(teacher, method, size)
    return wrapper_class(method)(teacher, method, size=size, seed=seed)
