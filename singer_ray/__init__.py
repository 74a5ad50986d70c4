"""Distil large Vision Transformers into small ones: SiNGER cleans the teacher's features, Ray scales and searches."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from singer_ray.api import distill, sweep
    from singer_ray.distillation import Distilled
    from singer_ray.errors import UserError
    from singer_ray.measuring import Analysis, Evaluation, analyze_teacher, evaluate_networks
    from singer_ray.search.driver.searched import Searched

__version__ = "0.1.0"
__all__ = [
    "Analysis",
    "Distilled",
    "Evaluation",
    "Searched",
    "UserError",
    "analyze_teacher",
    "distill",
    "evaluate_networks",
    "sweep",
]

_HOMES = {
    "distill": "singer_ray.api",
    "sweep": "singer_ray.api",
    "Distilled": "singer_ray.distillation",
    "Searched": "singer_ray.search.driver.searched",
    "UserError": "singer_ray.errors",
    "evaluate_networks": "singer_ray.measuring",
    "analyze_teacher": "singer_ray.measuring",
    "Evaluation": "singer_ray.measuring",
    "Analysis": "singer_ray.measuring",
}


def __getattr__(name: str) -> Any:
    # Looked up when asked for: a trial actor or `--help` must not pay for torch.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
