"""A host whose trials train in several workers each: a Ray Train TorchTrainer that starts and ends with its trial."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ray

from singer_ray.config import Config
from singer_ray.errors import UserError
from singer_ray.search.state.trial_checkpoint import read_saved
from singer_ray.search.study.schema import FAULT, UNSAVED
from singer_ray.search.workers.group_run import ENDING_SECONDS, GroupRun, Key
from singer_ray.search.workers.group_tasks import TIMES, GroupCaller, WorkerTask, time_steps, train
from singer_ray.search.workers.resources import Share
from singer_ray.storage import Folder

if TYPE_CHECKING:
    from singer_ray.training.timing import StepTimes

CLOSING_SECONDS = ENDING_SECONDS + 5.0


def train_environment() -> dict[str, str]:
    """This process's settings of Ray Train, for the processes that call it elsewhere in the cluster."""
    return {name: value for name, value in os.environ.items() if name.startswith("RAY_TRAIN_")}


class WorkerGroupActor:
    """One trial at a time, trained by a worker group of its own. Runs as a Ray actor that holds neither torch nor CPUs.

    To its trial it looks like a TrainerActor: `join`, `epoch`, `leave`, errors in words, the same checkpoint. No worker
    begins an epoch before the trial has asked for it, so that none is trained in vain. When a group dies, the call that
    waits for it fails: Tune restarts the trial, which goes on from its checkpoint.

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
        self.run: GroupRun | None = None
        self.leaving: GroupRun | None = None
        self.caller: Any = self._new_caller()  # imports torch while the search is still being checked

    async def join(self, key: Key, overrides: Mapping[str, Any]) -> dict[str, Any] | None:
        """Starts the workers of a trial from its checkpoint, or from scratch when it has none.

        Returns what TrainerActor.join returns.
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
        run = await self._start(train, key, config, overrides=dict(overrides), saved=(ray.put(saved),))
        return await run.next()

    async def epoch(self, key: Key) -> dict[str, Any]:
        """Lets the workers train and save one epoch. Returns its metrics, or under `fault` why there are none."""
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
        run = await self._start(time_steps, key, self.config)
        result = await run.next() or {}
        started = time.perf_counter() - begin
        if FAULT not in result:
            result = await run.next() or {}
        await self.leave(key)
        if FAULT in result:
            raise UserError(result[FAULT])
        times: StepTimes = result[TIMES]
        return replace(times, start=times.start + started)

    async def leave(self, key: Key) -> None:
        """Ends the workers of a trial, unless another has taken its place."""
        async with self.changing:
            if self.run is not None and self.run.key == key:
                await self._end()

    async def ping(self) -> None:
        """Answers, as a TrainerActor does."""

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
        """Called by the first worker as soon as it runs, with the placement group of all of them."""
        run = self.run or self.leaving
        if run is not None and run.key == key:
            run.place(group)

    async def begun(self, key: Key, epoch: int, result: dict[str, Any] | None) -> None:
        """Called by the first worker: it is ready, and has come as far as `epoch`."""
        if self.run is not None and self.run.key == key:
            self.run.allowed = epoch
            self.run.send(result)

    async def done(self, key: Key, result: dict[str, Any]) -> None:
        """Called by the first worker after each epoch, and by whichever fails."""
        if self.run is not None and self.run.key == key:
            self.run.send(result)

    async def turn(self, key: Key, epoch: int) -> bool:
        """Called by each worker before an epoch: True as soon as the trial wants it, False when it has left."""
        run = self.run
        return run is not None and run.key == key and await run.turn(epoch)

    async def _start(self, task: WorkerTask, key: Key, config: Config, **more: Any) -> GroupRun:
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
            run = self.run = GroupRun(key, self.caller.fit.remote(settings, self.share))
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
