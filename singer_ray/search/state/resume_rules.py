"""The rules of a resume: the command for it, what must be given again, and which settings may change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from singer_ray.console.wording import command
from singer_ray.errors import UserError
from singer_ray.training.resuming import own_inputs as own_inputs

if TYPE_CHECKING:
    from singer_ray.config import Config
    from singer_ray.training.launch import Inputs

CHANGEABLE = (
    "search.trials",
    "search.concurrent",
    "search.time_budget",
    "search.gpu_hours",
    "search.money",
    "search.target",
    "search.price_per_node_hour",
    "search.plateau_trials",
    "search.plateau_gain",
    "search.repeats",
    "search.repeat_top",
    "train.workers",
    "search.cpus_per_trial",
    "search.gpus_per_trial",
    "search.max_failures",
    "search.trackers",
    "export.",
)
"""Settings that a resume may change. The others determine what the earlier trials were."""


def check_changes(changes: Mapping[str, Any]) -> None:
    """Raises UserError for a setting that is not CHANGEABLE."""
    refused = [name for name in changes if not name.startswith(CHANGEABLE)]
    if refused:
        raise UserError(
            f"--resume goes on with the search as it was; {refused[0]} cannot change. Allowed: "
            f"{', '.join('--' + name.removesuffix('.') for name in CHANGEABLE)}. Start a new search for the rest."
        )


def resume_command(address: str, own: Sequence[str]) -> str:
    """What resumes the search at `address`; `own` is what `own_inputs` returns."""
    if not own:
        return command("tune", "--resume", address)
    return f"singer_ray.sweep(resume={address!r}, {', '.join(f'{name}=...' for name in own)}) in Python"


def require_inputs(address: str, config: Config, inputs: Inputs | None) -> None:
    """Raises UserError when the search at `address` was given objects in Python that are not given again."""
    own = own_inputs(config)
    missing = [name for name in own if getattr(inputs, name, None) is None]
    if missing:
        raise UserError(
            f"The search at {address} was given its {' and '.join(missing)} in Python, which it needs again: "
            f"{resume_command(address, own)}."
        )
