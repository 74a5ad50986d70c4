"""What the workers of one trial do, and the actor that starts them with Ray Train."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ray

from singer_ray.config import Config
from singer_ray.errors import UserError
from singer_ray.nodes.ray_cluster import NAMESPACE, words
from singer_ray.search.state.trial_checkpoint import TrialCheckpoint
from singer_ray.search.study.schema import FAULT
from singer_ray.search.workers.errors import trial_error
from singer_ray.search.workers.resources import Share

if TYPE_CHECKING:
    from singer_ray.training.context import TrainContext

WorkerTask = Callable[[dict[str, Any], Any, "TrainContext", int, int], None]
"""What workers do: (settings, host, context, rank, world)."""
TIMES = "times"


class GroupCaller:
    """Calls fit(): when this process is killed, all that it started dies too. Runs as a Ray actor."""

    def __init__(self) -> None:
        import ray.train.torch  # noqa: F401

    def fit(self, settings: dict[str, Any], share: Share) -> None:
        """Trains one trial to its end, or until its host sends the workers home."""
        import tempfile

        from ray.train import ControllerError

        from singer_ray.training.launch import START_TIMEOUT, STARTS, worker_group

        label = settings["key"][0]
        # Ray Train keeps nothing of its own here: the trial's checkpoint is in its folder.
        with tempfile.TemporaryDirectory() as folder:
            group = worker_group(
                _worker, settings, share.workers, folder, label, gpu=bool(share.gpus), each=share.each, preemptions=0
            )
            try:
                group.fit()
            except ControllerError as error:
                if type(error.controller_failure).__name__ != "WorkerGroupStartupTimeoutError":
                    raise
                raise UserError(
                    f"The cluster had no room for the {share.workers} workers of a trial ({words(share.each)} each), "
                    f"asked {STARTS} times for {os.environ[START_TIMEOUT]} s. Lower --concurrent, add machines, or set "
                    f"{START_TIMEOUT} higher."
                ) from error


def _worker(settings: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    import ray.train

    from singer_ray.training.launch import Inputs

    logging.getLogger("timm").setLevel(logging.WARNING)
    host = ray.get_actor(settings["host"], NAMESPACE)
    own = settings["inputs"][0]
    inputs: Inputs = Inputs() if own is None else ray.get(own)
    place = ray.train.get_context()
    if place.get_world_rank() == 0:
        ray.get(host.placed.remote(settings["key"], ray.util.get_current_placement_group()))
    try:
        context = inputs.context(Config.model_validate(settings["config"]))
        settings["task"](settings, host, context, place.get_world_rank(), place.get_world_size())
    except Exception as error:
        why = trial_error(error)
        if why is None:
            raise
        ray.get(host.done.remote(settings["key"], {FAULT: why}))


def train(settings: dict[str, Any], host: Any, context: TrainContext, rank: int, world: int) -> None:
    """Trains a trial, epoch by epoch, as its host lets it."""
    from singer_ray.training.loop import epochs
    from singer_ray.training.trainer import StudentTrainer

    key = settings["key"]
    # All ranks start from the very same bytes: the host has read them.
    record = TrialCheckpoint(settings["trials"], key[0], settings["overrides"], ray.get(settings["saved"][0]))
    trainer = StudentTrainer.begin(context, context.config, record.state, rank=rank, world=world)
    epoch = trainer.step_count // trainer.steps_per_epoch
    if rank == 0:
        ray.get(host.begun.remote(key, epoch, record.result()))
    trained = epochs(trainer)
    while trainer.step_count < trainer.steps:
        epoch += 1
        if not ray.get(host.turn.remote(key, epoch)):
            return
        begin = time.perf_counter()
        metrics = next(trained)
        if rank == 0:
            ray.get(host.done.remote(key, record.save(trainer, metrics, time.perf_counter() - begin)))


def time_steps(settings: dict[str, Any], host: Any, context: TrainContext, rank: int, world: int) -> None:
    """Times the parts of a trial in all workers at once, as they will run."""
    from singer_ray.training.timing import timing

    key = settings["key"]
    if rank == 0:
        ray.get(host.begun.remote(key, 0, None))
    times = timing(context, context.config, world=world)
    if rank == 0:
        ray.get(host.done.remote(key, {TIMES: times}))
