"""Keeps search.json up to date with what the search spends: a sign that its driver lives."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from singer_ray.search.state.store import SearchStore
    from singer_ray.search.strategy.cost import Meter

EVERY = 15.0
"""Seconds between two writes while nothing happens. A kill loses the count of what was spent since the last one."""
_PATIENCE = 5.0


class Heartbeat:
    """Writes what the running session has spent: at every change, and within a `with` block every 15 s as well.

    A trial may train for hours without reporting anything. `--status` must still show that the driver lives, and what
    a session had spent must survive its being killed.
    """

    def __init__(self, store: SearchStore, record: dict[str, Any], meter: Meter) -> None:
        self.store, self.record, self.meter = store, record, meter
        self._writing, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def save(self, urgent: bool) -> None:
        """Copies record and study to the shared folder: at once when `urgent`, else soon. Raises UserError, OSError."""
        if urgent:
            self.note()
        self.store.saved(urgent)

    def note(self, **facts: Any) -> None:
        """Writes search.json with what has been spent so far, and with `facts`. Raises OSError."""
        self.meter.tick()
        with self._writing:
            self.record |= self.meter.record() | facts
            self.store.write_record(self.record)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(_PATIENCE)  # it may be waiting for a cluster that is gone

    def _beat(self) -> None:
        while not self._over.wait(EVERY):
            with contextlib.suppress(Exception):  # a full disk, a lost cluster: the session itself will report it
                self.note()
                self.store.saved(False)
