"""What survives a trial's process: its last checkpoint, and everything that its epochs have reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from singer_ray import layout
from singer_ray.errors import UserError
from singer_ray.search.study.schema import CHECKPOINT, HISTORY, UNSAVED
from singer_ray.storage.retries import with_retries

if TYPE_CHECKING:
    from singer_ray.storage import Folder
    from singer_ray.training.trainer import StudentTrainer

ATTEMPTS = 14
"""With pauses that grow to 20 s they span three minutes and more: a store may be unreachable for that long."""
Result = TypeVar("Result")


class TrialCheckpoint:
    """The file LABEL/checkpoint.pt in `trials`: a trainer's state, and what its epochs have reported.

    Args:
        content: the bytes of that file, None when there is none.
    """

    def __init__(self, trials: Folder, label: str, overrides: Mapping[str, Any], content: bytes | None) -> None:
        from singer_ray.training import checkpoint  # imports torch, which only a process that trains needs

        self.trials, self.name, self.overrides = trials, f"{label}/{layout.CHECKPOINT}", dict(overrides)
        where = f"{trials.address}/{self.name}"
        state = None if content is None else checkpoint.from_bytes(content, where, checkpoint.TRIAL, checkpoint.RETRY)
        # With other settings it is not this trial's checkpoint: it belonged to a row that was lost.
        self.state: dict[str, Any] | None = state if state and state["overrides"] == self.overrides else None
        self.history: list[Any] = self.state["history"] if self.state else []
        self.seconds: float = self.state["seconds"] if self.state else 0.0

    @classmethod
    def read(cls, trials: Folder, label: str, overrides: Mapping[str, Any]) -> TrialCheckpoint:
        """The checkpoint as stored in `trials`. Raises UserError when the store cannot be read."""
        return cls(trials, label, overrides, read_saved(trials, label))

    def result(self) -> dict[str, Any] | None:
        """What was reported with the checkpoint, and by earlier epochs (`history`); None without a checkpoint."""
        if self.state is None:
            return None
        return {**self.state["metrics"], HISTORY: self.history[:-1], **self._place()}

    def save(self, trainer: StudentTrainer, metrics: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Writes the checkpoint of an epoch that took `seconds`; returns what to report, or why it is `unsaved`."""
        from singer_ray.training import checkpoint

        self.state = None  # free the checkpoint that it was resumed from
        self.seconds += seconds
        self.history.append([metrics["epoch"], {k: v for k, v in metrics.items() if not k.startswith("train/")}])
        content = checkpoint.to_bytes(
            trainer.state()
            | {
                "metrics": dict(metrics),
                "history": self.history,
                "seconds": self.seconds,
                "overrides": self.overrides,
            }
        )
        try:
            patiently(lambda: self.trials.write(self.name, content))
        except UserError as error:
            return {UNSAVED: str(error)}
        return {**metrics, **self._place()}

    def _place(self) -> dict[str, Any]:
        return {"trained_seconds": self.seconds, CHECKPOINT: f"{self.trials.address}/{self.name}"}


def read_saved(trials: Folder, label: str) -> bytes | None:
    """The bytes of a trial's checkpoint, None when there is none. Raises UserError when the store stays unreachable."""
    return patiently(lambda: trials.read(f"{label}/{layout.CHECKPOINT}"))


def patiently(act: Callable[[], Result]) -> Result:
    """What `act` returns, tried again while the store is unreachable. Raises its UserError when that lasts."""
    return with_retries(ATTEMPTS, act)
