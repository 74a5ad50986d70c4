"""Teacher, data and settings as Python callers give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from singer_ray.config import Config, load_preset

if TYPE_CHECKING:
    from torch import nn

    from singer_ray.training.launch import Inputs


def resolve(
    teacher: nn.Module | str | None,
    data: Any,
    probe_data: Any,
    preset: str,
    settings: Mapping[str, Any] | None,
) -> tuple[Config, Inputs]:
    """The configuration that these arguments of `distill` and its like mean, and what no configuration can name."""
    from singer_ray.data.wrapped import as_sources
    from singer_ray.training.launch import Inputs

    own: dict[str, Any] = {}
    if isinstance(teacher, str):
        own["teacher.name"] = teacher
    elif teacher is not None:
        own["teacher.name"] = f"own:{type(teacher).__name__}"
    if data is not None:
        own["data.source"] = "own"
    if probe_data is not None:
        own["evaluation.data.source"] = "own"
    sources = None if data is None else as_sources(data, "data")
    probes = None if probe_data is None else as_sources(probe_data, "probe_data")
    said = [line for found in (sources, probes) for s in (found or {}).values() for line in getattr(s, "remarks", ())]
    for line in dict.fromkeys(said):
        print(line)
    module = None if isinstance(teacher, str) else teacher
    return load_preset(preset).override({**own, **(settings or {})}), Inputs(module, sources, probes)
