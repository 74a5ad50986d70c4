"""Those who watch a search: none of them may end it, or hold it up."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from singer_ray.errors import printable
from singer_ray.storage import without_credentials

PATIENCE = 60.0
"""Seconds that the end of a search waits for what is still on its way to a server."""
Returned = TypeVar("Returned")
Parameters = Mapping[str, Any]


class Watcher(Protocol):
    """Hears what happens to the trials, each by its label."""

    def queue(self, trial: str, parameters: Parameters) -> None:
        """It waits for a host: for its first one, or again because it has lost one."""

    def start(self, trial: str, parameters: Parameters) -> None:
        """A host has taken it."""

    def log(self, trial: str, epoch: int, metrics: Mapping[str, Any]) -> None:
        """It has ended an epoch."""

    def end(self, trial: str, state: str, metrics: Mapping[str, Any]) -> None:
        """It has ended, perhaps without ever having had a host."""

    def close(self) -> None:
        """Nothing follows."""


class Guard:
    """Calls what only observes. Its first failure is said in one line, and from then on it is called no more."""

    def __init__(self, name: str, say: Callable[[str], object]) -> None:
        self.name, self.say = name, say
        self.failed = False

    def __call__(self, call: Callable[[], Returned], otherwise: Returned) -> Returned:
        """What `call` returns; `otherwise` when it fails, or has failed before."""
        if not self.failed:
            try:
                return call()
            except (Exception, SystemExit) as error:  # some libraries leave where they should raise
                self.failed = True
                with contextlib.suppress(Exception):
                    self.say(
                        f"{self.name} failed and will be left out from here on; the search goes on: {in_short(error)}"
                    )
        return otherwise


class Background:
    """A watcher that is made and works in a thread of its own, under a guard: be it slow, it delays no trial."""

    def __init__(self, name: str, make: Callable[[], Watcher], say: Callable[[str], object]) -> None:
        self.name, self.make, self.say = name, make, say
        self.guard = Guard(name, say)
        self.calls: queue.SimpleQueue[Callable[[Watcher], None] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._work, name=f"watcher-{name}", daemon=True)
        self.thread.start()

    def queue(self, trial: str, parameters: Parameters) -> None:
        self.calls.put(lambda watcher: watcher.queue(trial, parameters))

    def start(self, trial: str, parameters: Parameters) -> None:
        self.calls.put(lambda watcher: watcher.start(trial, parameters))

    def log(self, trial: str, epoch: int, metrics: Mapping[str, Any]) -> None:
        self.calls.put(lambda watcher: watcher.log(trial, epoch, metrics))

    def end(self, trial: str, state: str, metrics: Mapping[str, Any]) -> None:
        self.calls.put(lambda watcher: watcher.end(trial, state, metrics))

    def close(self) -> None:
        close([self])

    def finish(self) -> None:
        """Asks for the end without waiting for it."""
        self.calls.put(lambda watcher: watcher.close())
        self.calls.put(None)

    def wait(self, seconds: float) -> None:
        """Waits for the end, unless it has failed; says so when it does not come."""
        if not self.guard.failed:
            self.thread.join(seconds)
        if self.thread.is_alive() and not self.guard.failed:
            self.say(f"{self.name} did not take the last figures within {PATIENCE:g} s: they may be missing there.")

    def _work(self) -> None:
        watcher = self.guard(self.make, None)
        while watcher is not None and (call := self.calls.get()) is not None:
            self.guard(partial(call, watcher), None)
            if self.guard.failed:
                with contextlib.suppress(Exception):  # it may hold a terminal, or files
                    watcher.close()
                return


def close(observers: Sequence[Background]) -> None:
    """Ends all of them at once, in `PATIENCE` seconds at most."""
    deadline = time.monotonic() + PATIENCE
    for each in observers:
        each.finish()
    for each in observers:
        each.wait(max(0.0, deadline - time.monotonic()))


def in_short(error: BaseException) -> str:
    """An error in one short line, without passwords."""
    return printable(without_credentials(str(error))) or type(error).__name__
