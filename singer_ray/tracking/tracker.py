"""What a tracker of curves is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from singer_ray.errors import printable
from singer_ray.storage import without_credentials

Parameters = Mapping[str, Any]
"""Dotted names and values of what was tried."""


class Tracker(Protocol):
    """Hears what happens to runs (the trials of a search, or one run alone), each by its label."""

    def start(self, trial: str, parameters: Parameters) -> None: ...

    def log(self, trial: str, epoch: int, metrics: Mapping[str, Any]) -> None: ...

    def end(self, trial: str, state: str, metrics: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


def one_line(error: Exception) -> str:
    """An error in one short line."""
    return printable(without_credentials(str(error))) or type(error).__name__
