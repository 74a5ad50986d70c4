"""Whoever watches a run or a search, in a thread of its own: nothing of it may end the training, or hold it up."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from singer_ray.tracking.callback import Callback, Parameters
from singer_ray.tracking.tracker import one_line

PATIENCE = 60.0
"""Seconds that the end waits for what is still on its way to a server."""
Returned = TypeVar("Returned")


class Guard:
    """Calls what only observes. Its first failure is said in one line, and from then on it is called no more.

    `goes_on` is what is said to go on without it.
    """

    def __init__(self, name: str, warn: Callable[[str], object], goes_on: str = "the search goes on") -> None:
        self.name, self.warn, self.goes_on = name, warn, goes_on
        self.failed = False

    def __call__(self, call: Callable[[], Returned], otherwise: Returned) -> Returned:
        """What `call` returns; `otherwise` when it fails, or has failed before."""
        if not self.failed:
            try:
                return call()
            except (Exception, SystemExit) as error:  # some libraries leave where they should raise
                self.failed = True
                with contextlib.suppress(Exception):
                    self.warn(
                        f"{self.name} failed and will be left out from here on; {self.goes_on}: {one_line(error)}"
                    )
        return otherwise


class Background(Callback):
    """Makes a callback and calls it in a thread of its own, under a guard: one that is slow delays no training."""

    def __init__(
        self,
        name: str,
        make: Callable[[], Callback],
        warn: Callable[[str], object],
        goes_on: str = "the search goes on",
    ) -> None:
        self.name, self.make, self.warn = name, make, warn
        self.guard = Guard(name, warn, goes_on)
        self.calls: queue.SimpleQueue[Callable[[Callback], None] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._work, name=f"tracker-{name}", daemon=True)
        self.thread.start()

    def on_trial_queued(self, trial: str, parameters: Parameters) -> None:
        self.calls.put(lambda callback: callback.on_trial_queued(trial, parameters))

    def on_trial_start(self, trial: str, parameters: Parameters) -> None:
        self.calls.put(lambda callback: callback.on_trial_start(trial, parameters))

    def on_epoch_end(self, trial: str, epoch: int, metrics: Mapping[str, Any]) -> None:
        self.calls.put(lambda callback: callback.on_epoch_end(trial, epoch, metrics))

    def on_trial_end(self, trial: str, state: str, metrics: Mapping[str, Any]) -> None:
        self.calls.put(lambda callback: callback.on_trial_end(trial, state, metrics))

    def close(self) -> None:
        close([self])

    def finish(self) -> None:
        """Asks for the end without waiting for it."""
        self.calls.put(lambda callback: callback.close())
        self.calls.put(None)

    def wait(self, seconds: float) -> None:
        """Waits for the end, unless it has failed; says so when it does not come."""
        if not self.guard.failed:
            self.thread.join(seconds)
        if self.thread.is_alive() and not self.guard.failed:
            self.warn(f"{self.name} did not take the last figures within {PATIENCE:g} s: they may be missing there.")

    def _work(self) -> None:
        callback = self.guard(self.make, None)
        while callback is not None and (call := self.calls.get()) is not None:
            self.guard(partial(call, callback), None)
            if self.guard.failed:
                with contextlib.suppress(Exception):  # it may hold a terminal, or files
                    callback.close()
                return


def close(trackers: Sequence[Background]) -> None:
    """Ends all of them at once, in `PATIENCE` seconds at most."""
    deadline = time.monotonic() + PATIENCE
    for each in trackers:
        each.finish()
    for each in trackers:
        each.wait(max(0.0, deadline - time.monotonic()))
