"""A host whose trials train in several workers each: a Ray Train TorchTrainer that starts and ends with its trial."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import ray

from singer_ray.config import Config
from singer_ray.errors import UserError
from singer_ray.nodes.ray_cluster import NAMESPACE, ON_HEAD, user_error_in, words
from singer_ray.search.state.trial_checkpoint import TrialCheckpoint, read_saved
from singer_ray.search.study.schema import FAULT, UNSAVED
from singer_ray.search.workers.errors import fault_of, in_words
from singer_ray.storage import Folder

if TYPE_CHECKING:
    from singer_ray.training.context import TrainContext
    from singer_ray.training.timing import StepTimes

Task = Callable[[dict[str, Any], Any, "TrainContext", int, int], None]
"""What workers do: (settings, host, context, rank, world)."""
Key = tuple[str, str]
"""(trial label, incarnation): a late `leave` of an earlier incarnation must not evict a resumed trial."""
ENDING_SECONDS = 15.0
"""For workers that wait between two epochs to end by themselves; after it they are killed."""
TIMES = "times"
CLOSING_SECONDS = ENDING_SECONDS + 5.0


@dataclass(frozen=True)
class Share:
    """What a trial holds."""

    workers: int
    cpus: float
    """Of each worker."""
    gpus: float
    """Of each worker."""
    here: bool = False
    """On the head alone."""

    @property
    def each(self) -> dict[str, float]:
        """What each worker holds."""
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {}) | (ON_HEAD if self.here else {})


def train_environment() -> dict[str, str]:
    """This process's settings of Ray Train, for the processes that call it elsewhere in the cluster."""
    return {name: value for name, value in os.environ.items() if name.startswith("RAY_TRAIN_")}


class WorkerGroupActor:
    """One trial at a time, trained by a worker group of its own. Runs as a Ray actor that holds neither torch nor CPUs.

    Its trial sees what it sees of a HostedTrainer: `join`, `epoch`, `leave`, faults in words, the same checkpoint. No
    worker begins an epoch before the trial has asked for it, so that none is trained for nothing. A group that died
    fails the call that waits for it: Tune starts the trial again, which goes on from its checkpoint.

    Args:
        name: under which the workers find this actor.
        inputs: (reference to Inputs or None,).
        environment: variables for Ray Train.
    """

    def __init__(
        self,
        name: str,
        config: Mapping[str, Any],
        inputs: tuple[Any],
        trials: Folder,
        share: Share,
        environment: Mapping[str, str],
    ) -> None:
        self.name, self.config, self.inputs = name, Config.model_validate(config), inputs
        self.trials, self.share = trials, share
        # Ray Train's clean-up asks "which cluster?" and dies where it sees two, unless it is told.
        self.environment = {
            # Notices of machines that go away would start the group anew within its trial; that is Tune's business.
            **environment,
            "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
            "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
        }
        self.changing = asyncio.Lock()
        self.run: _Run | None = None
        self.leaving: _Run | None = None
        self.caller: Any = self._new_caller()  # imports torch while the search is still being checked

    async def join(self, key: Key, overrides: Mapping[str, Any]) -> dict[str, Any] | None:
        """Starts the workers of a trial from its checkpoint, or from scratch when it has none.

        Returns what HostedTrainer.join returns.
        """
        await self.close()  # workers of an earlier incarnation may still write the checkpoint
        try:
            saved = await asyncio.to_thread(read_saved, self.trials, key[0])
        except UserError as error:
            return {UNSAVED: str(error)}
        try:
            config = self.config.override(overrides)
        except UserError as error:
            return {FAULT: str(error)}
        run = await self._start(_train, key, config, overrides=dict(overrides), saved=(ray.put(saved),))
        return await run.next()

    async def epoch(self, key: Key) -> dict[str, Any]:
        """Lets the workers train and save one epoch of the trial: its metrics, or its fault in words under `fault`."""
        run = self.run
        if run is None or run.key != key:
            raise RuntimeError(f"trial {key[0]} is not on this host any more")
        await run.allow()
        result = await run.next()
        assert result is not None
        return result

    async def timing(self) -> StepTimes:
        """How long the parts of a trial take in a worker group, its start among them. Raises UserError."""
        begin, key = time.perf_counter(), ("timing", uuid.uuid4().hex)
        run = await self._start(_time, key, self.config)
        found = await run.next() or {}
        started = time.perf_counter() - begin
        if FAULT not in found:
            found = await run.next() or {}
        await self.leave(key)
        if FAULT in found:
            raise UserError(found[FAULT])
        times: StepTimes = found[TIMES]
        return replace(times, start=times.start + started)

    async def leave(self, key: Key) -> None:
        """Ends the workers of a trial, unless another has taken its place."""
        async with self.changing:
            if self.run is not None and self.run.key == key:
                await self._end()

    async def ping(self) -> None:
        """Answers."""

    async def interrupt(self) -> None:
        """The trial that is here ends: nobody waits for its epoch."""
        run = self.run
        if run is not None:
            run.send({"done": True})
            run.busy = True  # its workers are
        await self.close()

    async def close(self) -> None:
        """Ends the workers of whatever trial is here."""
        async with self.changing:
            await self._end()

    async def placed(self, key: Key, group: Any) -> None:
        """Said by the first worker as soon as it runs: the placement group of all of them."""
        run = self.run or self.leaving
        if run is not None and run.key == key:
            run.place(group)

    async def begun(self, key: Key, epoch: int, result: dict[str, Any] | None) -> None:
        """Said by the first worker: it is ready, and has come as far as `epoch`."""
        if self.run is not None and self.run.key == key:
            self.run.allowed = epoch
            self.run.send(result)

    async def done(self, key: Key, result: dict[str, Any]) -> None:
        """Said by the first worker after each epoch, and by whichever has a fault."""
        if self.run is not None and self.run.key == key:
            self.run.send(result)

    async def turn(self, key: Key, epoch: int) -> bool:
        """Asked by each worker before an epoch: True as soon as the trial wants it, False when it has left."""
        run = self.run
        return run is not None and run.key == key and await run.turn(epoch)

    async def _start(self, task: Task, key: Key, config: Config, **more: Any) -> _Run:
        settings = {
            "task": task,
            "host": self.name,
            "key": key,
            "config": config.model_dump(),
            "inputs": self.inputs,
            "trials": self.trials,
            **more,
        }
        async with self.changing:
            await self._end()
            run = self.run = _Run(key, self.caller.fit.remote(settings, self.share))
            return run

    async def _end(self) -> None:
        run, self.run = self.run, None
        self.leaving = run
        if run is None or await run.end():
            return
        # The controller and the workers die with the process that called fit(); what they held is freed here.
        ray.kill(self.caller)
        if run.group is not None:
            with contextlib.suppress(Exception):  # gone with its machine, or with the cluster
                await asyncio.to_thread(ray.util.remove_placement_group, run.group)
        self.caller = self._new_caller()

    def _new_caller(self) -> Any:
        caller = ray.remote(num_cpus=0, scheduling_strategy="SPREAD", runtime_env={"env_vars": self.environment})
        return caller(GroupCaller).remote()


class _Run:
    """What a GroupHost knows of a trial's workers."""

    def __init__(self, key: Key, fit: Any) -> None:
        self.key = key
        self.group: Any = None
        self.allowed = 0
        self.over, self.busy = False, True
        self._ended = asyncio.ensure_future(_outcome(fit))
        self._said: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._changed = asyncio.Condition()
        self._placed = asyncio.Event()

    def send(self, result: dict[str, Any] | None) -> None:
        """What the trial is to hear."""
        self.busy = False
        self._said.put_nowait(result)

    async def next(self) -> dict[str, Any] | None:
        """What the workers say next. Raises RuntimeError when they end instead."""
        if not self._said.empty():
            return self._said.get_nowait()
        said = asyncio.ensure_future(self._said.get())
        await asyncio.wait({said, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        if said.done():
            return said.result()
        said.cancel()
        error = self._ended.result()
        if isinstance(error, UserError):
            return {FAULT: str(error)}
        why = "the trial has left" if error is None else in_words(error)
        raise RuntimeError(f"the workers of trial {self.key[0]} have ended: {why}") from error

    def place(self, group: Any) -> None:
        """The workers run, in the placement group `group`."""
        self.group = group
        self._placed.set()

    async def allow(self) -> None:
        """The trial wants another epoch."""
        async with self._changed:
            self.allowed, self.busy = self.allowed + 1, True
            self._changed.notify_all()

    async def turn(self, epoch: int) -> bool:
        async with self._changed:
            await self._changed.wait_for(lambda: self.over or self.allowed >= epoch)
        return not self.over

    async def end(self) -> bool:
        """Sends the workers home; whether they went by themselves."""
        async with self._changed:
            self.over = True
            self._changed.notify_all()
        # A placement group that nobody knows of could not be freed: let it come, or fail, before anything is killed.
        placed = asyncio.ensure_future(self._placed.wait())
        await asyncio.wait({placed, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        placed.cancel()
        if not self.busy:
            await asyncio.wait({self._ended}, timeout=ENDING_SECONDS)
        return self._ended.done() and self._ended.result() is None


async def _outcome(fit: Any) -> Exception | None:
    """Why fit() failed: a UserError for what the user can mend; None when it did not fail."""
    try:
        await fit
    except Exception as error:
        return user_error_in(error)
    return None


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
        fault = fault_of(error)
        if fault is None:
            raise
        ray.get(host.done.remote(settings["key"], {FAULT: fault}))


def _train(settings: dict[str, Any], host: Any, context: TrainContext, rank: int, world: int) -> None:
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


def _time(settings: dict[str, Any], host: Any, context: TrainContext, rank: int, world: int) -> None:
    """Times the parts of a trial in all workers at once, as they will run."""
    from singer_ray.training.timing import timing

    key = settings["key"]
    if rank == 0:
        ray.get(host.begun.remote(key, 0, None))
    times = timing(context, context.config, world=world)
    if rank == 0:
        ray.get(host.done.remote(key, {TIMES: times}))
