"""Teacher, data and settings as Python callers give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from singer_ray.config import Config, load_preset
from singer_ray.config.given import settle
from singer_ray.config.sources import FROM_PYTHON
from singer_ray.errors import UserError, printable

if TYPE_CHECKING:
    from torch import nn

    from singer_ray.training.launch import Inputs


def resolve(
    teacher: nn.Module | str | None,
    data: Any,
    probe_data: Any,
    preset: str,
    settings: Mapping[str, Any] | None,
    *,
    sent: bool = False,
) -> tuple[Config, Inputs]:
    """The configuration that these arguments of `distill` and its like mean, and what no configuration can name.

    `sent` says that other processes need it in any case. Raises UserError.
    """
    from singer_ray.data.wrapped import as_sources
    from singer_ray.training.launch import Inputs

    own: dict[str, Any] = {}
    if isinstance(teacher, str):
        own["teacher.name"] = teacher
    elif teacher is not None:
        own["teacher.name"] = f"own:{type(teacher).__name__}"
    if data is not None:
        own["data.source"] = FROM_PYTHON
    if probe_data is not None:
        own["evaluation.data.source"] = FROM_PYTHON
    sources = None if data is None else as_sources(data, "data")
    probes = None if probe_data is None else as_sources(probe_data, "probe_data")
    module = None if isinstance(teacher, str) else teacher
    config = load_preset(preset).override({**own, **(settings or {})})
    config = settle(config, {*own, *(settings or {})}, distils=module is None)
    inputs = Inputs(module, sources, probes)
    if sent or config.train.workers > 1 or config.train.launcher == "ray":
        require_sendable(inputs)
    return config, inputs


def require_sendable(inputs: Inputs) -> None:
    """Raises UserError for a teacher or data set of one's own that the processes of a search could not be given."""
    from singer_ray.data.processes import why_not_sendable

    named: dict[str, Any] = {"teacher": inputs.teacher}
    for argument, sets in (("data", inputs.data), ("probe_data", inputs.probe_data)):
        named |= {
            f"{argument}[{split!r}]": getattr(source, "dataset", source) for split, source in (sets or {}).items()
        }
    for name, content in named.items():
        reason = None if content is None else why_not_sendable(content)
        if reason:
            raise UserError(
                f"{name} ({type(content).__name__}) cannot be sent to other processes: {printable(reason)}. Open files "
                "and connections where they are needed (in __getitem__), not in __init__."
            )
