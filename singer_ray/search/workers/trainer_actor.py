"""The actor that trains: it holds torch, teacher and data, and outlives the trials that it serves."""

from __future__ import annotations

import functools
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from singer_ray.config import Config
from singer_ray.errors import UserError
from singer_ray.search.state.trial_checkpoint import TrialCheckpoint
from singer_ray.search.study.schema import FAULT, UNSAVED
from singer_ray.search.workers.errors import breaks_process, trial_error
from singer_ray.search.workers.group_run import Key
from singer_ray.storage import Folder

if TYPE_CHECKING:
    from singer_ray.evaluation.linear_head import LinearHead
    from singer_ray.training.context import TrainContext
    from singer_ray.training.timing import StepTimes


CONTROL = "control"
"""The second thread of a TrainerActor: calls that must not wait for an epoch."""


LAST_WORDS = 1.0
"""Seconds that a host whose GPU became unusable lives on, so that its trial hears why."""


class TrainerActor:
    """One trainer at a time in a context that stays. Runs as a Ray actor, one per concurrent trial.

    An error of the trial's own (a bad value, a loss that diverged, too little memory) is returned in words. Any other
    is raised: Tune then restarts the trial, which goes on from its checkpoint in `trials`/LABEL.
    """

    def __init__(self, config: Mapping[str, Any], inputs: Any, trials: Folder) -> None:
        # imports torch, which only the hosts need
        from singer_ray.training.launch import Inputs

        self.config = Config.model_validate(config)
        self.inputs: Inputs = inputs or Inputs()
        self.trials = trials
        self.key: Key | None = None
        self.interrupted: Key | None = None
        self.trainer: Any = None
        self.epochs: Iterator[dict[str, float]] = iter(())

    @functools.cached_property
    def context(self) -> TrainContext:
        """Built lazily: Ray keeps only the text of constructor errors."""
        return self.inputs.context(self.config)

    def ready(self) -> list[str]:
        """The metrics that trials report after every epoch, best first for a default."""
        from singer_ray.training.loop import EPOCH_METRICS

        return [*self.context.suite.metric_names(), *EPOCH_METRICS]

    def remarks(self) -> list[str]:
        """What a person should know of the images before the search; see `TrainContext.remarks`."""
        return self.context.remarks

    def ping(self) -> None:
        """Answers as soon as nothing else is asked of this actor."""

    def check(self, corners: list[dict[str, Any]]) -> str | None:
        """Builds a trainer at each of these settings; returns the first error in words, None when all can be built."""
        from singer_ray.training.trainer import StudentTrainer

        for corner in corners:
            try:
                StudentTrainer(self.context, Config.model_validate(corner))
            except UserError as error:
                return str(error)
        return None

    def timing(self) -> StepTimes:
        """How long the parts of a trial take here; see `timing`."""
        from singer_ray.training.timing import timing

        return timing(self.context, self.config)

    def join(self, key: Key, overrides: Mapping[str, Any]) -> dict[str, Any] | None:
        """Makes the trainer of a trial from its checkpoint, or from scratch when it has none.

        Returns None for a trial that starts, and else the result that was saved with its checkpoint, with what earlier
        epochs reported under `history`. Errors are returned in words: the trial's under `fault`, that its checkpoint
        cannot be read under `unsaved`.
        """
        from singer_ray.training.loop import epochs
        from singer_ray.training.trainer import StudentTrainer
        from singer_ray.vision.students import MisfitError

        self._release()
        try:
            self.record = TrialCheckpoint.read(self.trials, key[0], overrides)
        except UserError as error:
            return {UNSAVED: str(error)}
        try:
            config = self.config.override(overrides)
            self.trainer = StudentTrainer.begin(self.context, config, self.record.state)
        except MisfitError as error:
            return self._failed(UserError(f"its checkpoint {error}"))
        except Exception as error:
            return self._failed(error)
        self.key, self.epochs = key, epochs(self.trainer, self._heartbeat)
        return self.record.result()

    def epoch(self, key: Key) -> dict[str, Any]:
        """Trains and saves one epoch of the trial. Returns its metrics; in words what went wrong, under `fault`, or why
        the epoch could not be saved, under `unsaved`.

        The epoch of a trial that is interrupted counts for nothing.
        """
        if key != self.key:
            raise RuntimeError(f"trial {key[0]} is not on this host any more")
        begin = time.perf_counter()
        try:
            metrics = next(self.epochs)
        except _InterruptedError:
            self._release()
            return {"done": True}
        except Exception as error:
            return self._failed(error)
        return self.record.save(self.trainer, metrics, time.perf_counter() - begin)

    @ray.method(concurrency_group=CONTROL)
    def interrupt(self) -> None:
        """The trial that is here ends with its next step: nobody waits for its epoch."""
        self.interrupted = self.key

    def leave(self, key: Key) -> None:
        """Drops the trainer of a trial, unless another has taken its place."""
        if key == self.key:
            self._release()

    def final_metrics(self, label: str, overrides: Mapping[str, Any]) -> dict[str, float]:
        """What the last epoch of a run reports, for a student that was stopped before it."""
        from singer_ray.training.loop import final_metrics
        from singer_ray.training.trainer import StudentTrainer

        config = self.config.override(overrides)
        return final_metrics(
            StudentTrainer.begin(self.context, config, TrialCheckpoint.read(self.trials, label, overrides).state)
        )

    def accessories(self, label: str, overrides: Mapping[str, Any]) -> tuple[dict[str, bytes], LinearHead | None]:
        """What else a student's package holds: pictures beside its teacher's, by file name, and its linear head."""
        from singer_ray.evaluation.linear_head import linear_head
        from singer_ray.training.pictures import draw_student_pictures
        from singer_ray.training.trainer import StudentTrainer

        config = self.config.override(overrides)
        trainer = StudentTrainer.begin(self.context, config, TrialCheckpoint.read(self.trials, label, overrides).state)
        with tempfile.TemporaryDirectory() as place:
            pictures = {path.name: path.read_bytes() for path in draw_student_pictures(trainer, Path(place))}
        return pictures, linear_head(self.context.suite, trainer.reader())

    def _heartbeat(self, *of_the_step: object) -> None:
        if self.interrupted == self.key:
            raise _InterruptedError

    def _failed(self, error: Exception) -> dict[str, Any]:
        why = trial_error(error)
        if why is None:
            if breaks_process(error):  # Ray starts a new one; this one's answer has left by then
                threading.Timer(LAST_WORDS, os._exit, (1,)).start()
            raise error
        self._release()
        return {FAULT: why}

    def _release(self) -> None:
        import torch

        self.key, self.trainer, self.epochs = None, None, iter(())
        torch.cuda.empty_cache()  # what a trial could not use the next one may, or the neighbour on this GPU


class _InterruptedError(Exception):
    """The search has ended the trial."""
