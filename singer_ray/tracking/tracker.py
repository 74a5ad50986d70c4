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

    def queue(self, trial: str, parameters: Parameters) -> None:
        """It waits for a host: for its first one, or again because it has lost one. A run alone never does."""

    def start(self, trial: str, parameters: Parameters) -> None:
        """A host has taken it."""

    def log(self, trial: str, epoch: int, metrics: Mapping[str, Any]) -> None:
        """It has ended an epoch."""

    def end(self, trial: str, state: str, metrics: Mapping[str, Any]) -> None:
        """It has ended, perhaps without ever having had a host."""

    def close(self) -> None:
        """Nothing follows."""


def one_line(error: BaseException) -> str:
    """An error in one short line, without passwords."""
    return printable(without_credentials(str(error))) or type(error).__name__
