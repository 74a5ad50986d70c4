"""A trial while it runs: what it is to train, what it has reported, and how that ends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial

from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.schema import (
    CHECKPOINT,
    COMPLETE,
    FAIL,
    FAULT,
    METRICS,
    PRUNED,
    RESUMED,
    SECONDS,
    SEED,
    STARTED,
    STOPPED,
    WAITED,
    WAITING,
    label_of_row,
)
from singer_ray.storage import without_credentials

_KEPT = ("epoch", "images_per_second", "data_wait_share")


@dataclass(frozen=True)
class Assignment:
    """What a trial is to train."""

    number: int
    """Row of the study."""
    label: str
    """Name of its folder: the number, and the seed where it repeats another trial."""
    parameters: dict[str, Any]
    """Dotted names and values."""
    seed: int | None
    """Of a repeat; None is the configuration's."""

    @property
    def overrides(self) -> dict[str, Any]:
        """What differs from the search's configuration."""
        return self.parameters if self.seed is None else {**self.parameters, "seed": self.seed}


@dataclass
class RunningRow:
    """A row of the study that is running or queued."""

    storage_id: int
    assignment: Assignment
    values: dict[int, float]
    """The stop metric by epoch, as far as the study has it."""
    verdict: Mapping[str, Any] | None = None
    """That the pruner stopped it; see `Judge`."""
    latest: float | None = None
    """The stop metric as last reported, finite or not; None before that."""
    adopted: bool = False
    """Whether its driver died: its checkpoint may know more than the study."""
    begun: bool = False
    """Whether a host has ever had it."""
    taken: float | None = None
    """Since when its host has it (Unix seconds); None while it waits for one."""
    result: dict[str, Any] = field(default_factory=dict)
    """The last result."""

    @classmethod
    def of(cls, row: FrozenTrial, *, adopted: bool) -> RunningRow:
        """From what the study has."""
        values = dict(row.intermediate_values)
        return cls(
            row._trial_id,
            Assignment(row.number, label_of_row(row), row.params, row.user_attrs.get(SEED)),
            values,
            row.user_attrs.get(STOPPED),
            latest=values[max(values)] if values else None,
            adopted=adopted,
            begun=adopted and (STARTED in row.user_attrs or bool(values)),
        )

    @property
    def label(self) -> str:
        return self.assignment.label

    @property
    def epoch(self) -> int:
        """Of the last result."""
        return int(self.result.get("epoch", 0))

    def outcome(
        self, result: Mapping[str, Any], objectives: Objectives, epochs: int, *, died: bool
    ) -> tuple[str, str | None]:
        """The state that it ends in (WAITING: it has shown nothing yet), and what went wrong in words.

        Args:
            result: that it ended with.
            epochs: of a whole trial.
            died: whether its process did.
        """
        if result.get(FAULT):
            return FAIL, without_credentials(str(result[FAULT]))  # it is shown, kept and published
        if died:
            return FAIL, "the process or machine died"
        if self.epoch >= epochs:
            if objectives.values(self.result) is None:
                return FAIL, "an objective was not finite in its last epoch"
            return COMPLETE, None
        if self.latest is None:  # no epoch of it was due for a validation
            return WAITING, None
        if not self.values:
            return FAIL, "its metric was never finite"
        return (PRUNED, None) if is_finite(self.latest) else (FAIL, "its metric is no longer finite")

    def attributes(self, error: str | None) -> dict[str, Any]:
        """What the study keeps of a trial that has ended; `error` is what went wrong."""
        result = self.result
        kept: dict[str, Any] = {
            METRICS: {k: v for k, v in result.items() if is_finite(v) and ("/" in k or k in _KEPT)},
            SECONDS: round(float(result.get("trained_seconds", 0.0)), 3),
        }
        kept |= {WAITED: round(float(result[WAITED]), 3)} if result.get(WAITED) else {}
        kept |= {FAULT: error} if error else {}
        kept |= {RESUMED: int(result[RESUMED])} if result.get(RESUMED) is not None else {}
        return kept | ({CHECKPOINT: result[CHECKPOINT]} if result.get(CHECKPOINT) else {})


def is_finite(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
