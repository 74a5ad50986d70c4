"""What can follow a search or a run: hooks that are called as its trials come and go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Parameters = Mapping[str, Any]
"""Dotted names and values of what is tried."""


class Callback:
    """Override the hooks that matter; the others do nothing. A run that belongs to no search is its own only trial.

    `trial` is a label: "007", "007-seed1", or the name of a run.
    """

    def on_trial_queued(self, trial: str, parameters: Parameters) -> None:
        """The trial waits for a host: for its first one, or again because it has lost one. Never called for a run."""

    def on_trial_start(self, trial: str, parameters: Parameters) -> None:
        """A host has taken the trial."""

    def on_epoch_end(self, trial: str, epoch: int, metrics: Mapping[str, Any]) -> None:
        """The trial has reported an epoch."""

    def on_trial_end(self, trial: str, state: str, metrics: Mapping[str, Any]) -> None:
        """The trial is over (COMPLETE, PRUNED, FAIL, WAITING), perhaps without ever having had a host."""

    def close(self) -> None:
        """Nothing follows."""
