"""One run of the loop: in this process, or in the workers of a Ray Train TorchTrainer."""

from __future__ import annotations

import functools
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from singer_ray.data.splits import Splits
from singer_ray.errors import UserError, user_error_in
from singer_ray.layout import CHECKPOINT, RAY_TRAIN
from singer_ray.storage.address import Address
from singer_ray.tracking.history import RATE
from singer_ray.tracking.run_record import RunRecord
from singer_ray.training import checkpoint
from singer_ray.training.context import TrainContext
from singer_ray.training.loop import Metrics, epochs
from singer_ray.training.progress import EpochLines
from singer_ray.training.trainer import StudentTrainer
from singer_ray.vision.students import MisfitError

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer
    from rich.console import Console

    from singer_ray.config import Config
    from singer_ray.training.messages import Tell

START_TIMEOUT, STARTS = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", 4
"""How long a worker group may take to start (variable, in seconds), and how often that is tried."""


@dataclass(frozen=True)
class Inputs:
    """What a run reads besides its configuration: a teacher and sources of one's own."""

    teacher: nn.Module | None = None
    data: Splits | None = None
    probe_data: Splits | None = None

    def context(self, config: Config) -> TrainContext:
        """The context of `config` with these in place of the configured ones."""
        return TrainContext(config, teacher=self.teacher, data=self.data, probe_data=self.probe_data)


def runs_in_ray(config: Config) -> bool:
    """Whether `train.launcher` and `train.workers` call for Ray Train. Raises UserError when they contradict."""
    train = config.train
    if train.launcher == "local" and train.workers > 1:
        raise UserError(
            f"train.launcher local runs one worker, not train.workers {train.workers}. Use --train.launcher ray."
        )
    return train.launcher == "ray" or train.workers > 1


def launch_here(
    trainer: StudentTrainer,
    out: Path,
    *,
    resume: bool,
    log: Callable[[str], None],
    record: RunRecord,
    console: Console | None = None,
) -> Metrics:
    """Trains in this process and returns what the last epoch reported.

    OUT receives a checkpoint after each epoch, `record` its metrics. With `resume` it continues from OUT's checkpoint.
    """
    state = checkpoint.load(out) if resume else None
    try:
        trainer.make_ready(state, log)
    except MisfitError as error:
        raise UserError(f"{out / CHECKPOINT} {error}. {checkpoint.RESTART}") from error
    record.begin(*_so_far(trainer, state))
    metrics: Metrics = {}
    with EpochLines(trainer.config, log, console) as lines:
        for metrics in epochs(trainer, heartbeat=lines.heartbeat):
            checkpoint.save(out, trainer.state() | {"metrics": metrics})
            lines.epoch(metrics)
            record.epoch(_row(trainer, metrics))
    return metrics or (state or {}).get("metrics", {})


def launch_in_ray(
    config: Config, inputs: Inputs, out: Path, *, resume: bool = False, log: Callable[[str], None], record: RunRecord
) -> tuple[Metrics, dict[str, Any]]:
    """Trains in the workers of a TorchTrainer; returns what the last epoch reported, and the state that it left.

    Ray Train continues by itself where OUT/ray_train holds a checkpoint.

    With `resume`, where there is none, it goes on from OUT's own: from one worker to several. The first worker's lines
    and epochs come here, to `log` and `record`: OUT is on this machine alone.
    """
    import ray
    import ray.train

    from singer_ray.nodes import ray_cluster
    from singer_ray.nodes.ray_start import telling_train_which_cluster
    from singer_ray.training.messages import heard

    with ray_cluster.connected(), telling_train_which_cluster():
        path, name = ray_cluster.storage(config.train.storage, out, RAY_TRAIN)
        workers = config.train.workers
        use_gpu = config.train.device != "cpu" and ray_cluster.has_gpus(log)
        each = {"GPU" if use_gpu else "CPU": 1.0}
        if config.train.storage is None:  # a machine that joins yet could not save where this one does
            each |= ray_cluster.ON_HEAD
        what = f"the {workers} workers of --workers {workers}" if workers > 1 else "a worker"
        ray_cluster.wait_for_room(each, workers, what, log)
        log(f"{workers} worker{'s' * (workers > 1)} on {ray_cluster.describe()}")
        written = config.without_passwords()  # Ray shows and logs what its workers are given
        begun = resume and (out / CHECKPOINT).exists()
        # As references: settings travel within messages, which have a limit. And Ray Train's controller reads them too,
        # which would have to load torch and all of this package for `Inputs` before it could start a worker.
        saved = ray.put(checkpoint.load(out)) if begun else None
        own = ray.put(inputs)
        with heard({"line": log, "begin": lambda told: record.begin(*told), "epoch": record.epoch}) as tell:
            settings = {"config": written.model_dump(), "inputs": (own,), "tell": tell, "saved": (saved,)}
            group = worker_group(
                _worker, settings, workers, path, name, gpu=use_gpu, each=each, endpoint=config.export.endpoint
            )
            try:
                result = group.fit()
            except ray.train.TrainingFailedError as error:
                raise user_error_in(error) from error
        if result.checkpoint is None or result.metrics is None:
            raise UserError(f"Ray Train ended without a checkpoint. Its logs are in {path}/{name}.")
        with result.checkpoint.as_directory() as folder:
            state = checkpoint.load(Path(folder))
        return state.pop("metrics"), state


def _so_far(trainer: StudentTrainer, state: dict[str, Any] | None) -> tuple[int, Metrics | None]:
    """Epochs that a trainer has behind it, and what the last of them reported."""
    metrics = (state or {}).get("metrics")
    return trainer.step_count // trainer.steps_per_epoch, _row(trainer, metrics) if metrics else None


def _row(trainer: StudentTrainer, metrics: Metrics) -> Metrics:
    """What an epoch reported, with the learning rate of its last step."""
    assert trainer.optimizer is not None
    return {**metrics, RATE: float(trainer.optimizer.param_groups[0]["lr"])}


def worker_group(
    loop: Callable[[dict[str, Any]], None],
    settings: dict[str, Any],
    workers: int,
    path: str,
    name: str,
    *,
    gpu: bool,
    each: dict[str, float] | None = None,
    preemptions: int = -1,
    endpoint: str | None = None,
) -> TorchTrainer:
    """A TorchTrainer whose `workers` run `loop(settings)`; its own state is in PATH/NAME.

    Args:
        endpoint: of an S3-compatible server, where PATH is in S3.
        each: what each worker holds; by default a GPU, or a CPU without `gpu`.
        preemptions: how often it starts anew by itself when the cloud takes a machine away; -1 is always.
    """
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    # That the cluster can offer the workers is known; machines that must start first may take minutes.
    os.environ.setdefault(START_TIMEOUT, "600")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # a relative path means the same with one worker and with two
    return TorchTrainer(
        loop,
        train_loop_config=settings,
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu, resources_per_worker=each),
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        run_config=RunConfig(  # type: ignore[call-arg]
            name=name,
            storage_path=Address.of(path).uri(endpoint),
            # A worker group that can never be placed would otherwise be asked for again and again, for ever.
            failure_config=FailureConfig(  # type: ignore[call-arg]
                max_failures=0, controller_failure_limit=STARTS - 1, max_preemption_failures=preemptions
            ),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )


def _worker(settings: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    import ray
    import ray.train

    from singer_ray.config import Config

    config = Config.model_validate(settings["config"])
    logging.getLogger("timm").setLevel(logging.WARNING)
    place = ray.train.get_context()
    rank, world = place.get_world_rank(), place.get_world_size()
    before = ray.train.get_checkpoint()
    state = None
    if before is not None:
        with before.as_directory() as folder:
            state = checkpoint.load(Path(folder))
    elif settings["saved"][0] is not None:
        state = ray.get(settings["saved"][0])
    context = ray.get(settings["inputs"][0]).context(config)
    tell: Tell = settings["tell"] if rank == 0 else lambda kind, content: None
    log = functools.partial(tell, "line")
    try:
        trainer = StudentTrainer.begin(context, config, state, rank=rank, world=world, log=log)
    except MisfitError as error:
        raise UserError(f"The checkpoint of Ray Train {error}. {checkpoint.RESTART}") from error
    tell("begin", _so_far(trainer, state))
    lines = EpochLines(config, log)
    for metrics in epochs(trainer, heartbeat=lines.heartbeat):
        if rank:
            ray.train.report({})
            continue
        lines.epoch(metrics)
        tell("epoch", _row(trainer, metrics))
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.save(Path(folder), trainer.state() | {"metrics": metrics})
            ray.train.report(dict(metrics), checkpoint=ray.train.Checkpoint.from_directory(folder))
