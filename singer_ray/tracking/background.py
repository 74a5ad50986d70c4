"""A tracker in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

from singer_ray.tracking.tracker import Parameters, Tracker, one_line

PATIENCE = 60.0
"""Seconds that `close` waits for what is still on its way to a server."""


class Background:
    """A tracker that works in a thread of its own. Its first failure is said in one line, and it hears no more.

    `goes_on` is what is said to go on without it.
    """

    def __init__(self, name: str, tracker: Tracker, say: Callable[[str], object], goes_on: str) -> None:
        self.name, self.tracker, self.say, self.goes_on = name, tracker, say, goes_on
        self.failed = False
        self.calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._work, name=f"tracker-{name}", daemon=True)
        self.thread.start()

    def start(self, trial: str, parameters: Parameters) -> None:
        self.calls.put(lambda: self.tracker.start(trial, parameters))

    def log(self, trial: str, epoch: int, metrics: Mapping[str, Any]) -> None:
        self.calls.put(lambda: self.tracker.log(trial, epoch, metrics))

    def end(self, trial: str, state: str, metrics: Mapping[str, Any]) -> None:
        self.calls.put(lambda: self.tracker.end(trial, state, metrics))

    def close(self) -> None:
        self.calls.put(lambda: self.tracker.close())
        self.calls.put(None)
        self.thread.join(PATIENCE)
        if self.thread.is_alive() and not self.failed:
            self.say(f"{self.name} did not take the last figures within {PATIENCE:g} s: they may be missing there.")

    def _work(self) -> None:
        while (call := self.calls.get()) is not None:
            try:
                if not self.failed:
                    call()
            except Exception as error:
                self.failed = True
                self.say(f"{self.name} failed and is left out from here on; {self.goes_on}: {one_line(error)}")
