"""The record of a search, search.json, kept up to date with what it spends."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from singer_ray.search.state.store import SearchStore
    from singer_ray.search.strategy.cost import Meter

EVERY = 15.0
"""Seconds between two records while nothing happens. A kill loses what was spent since the last one."""
_PATIENCE = 5.0


class Heartbeat:
    """Writes what the running session has spent: at every change, and within a `with` block also between changes.

    A trial may train for hours without a word. Whoever looks (`--status`) shall see that its driver lives, and a
    session that is killed shall have spent what it spent.
    """

    def __init__(self, store: SearchStore, record: dict[str, Any], meter: Meter) -> None:
        self.store, self.record, self.meter = store, record, meter
        self._writing, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True)

    def save(self, urgent: bool) -> None:
        """Brings record and study to the copy: at once when `urgent`, else soon. Raises UserError, OSError."""
        if urgent:
            self.note()
        self.store.saved(urgent)

    def note(self, **facts: Any) -> None:
        """Writes search.json: what has been spent until now, and `facts`. Raises OSError."""
        self.meter.tick()
        with self._writing:
            self.record |= self.meter.record() | facts
            self.store.write_record(self.record)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(_PATIENCE)  # it may wait for a cluster that is gone

    def _go_on(self) -> None:
        while not self._over.wait(EVERY):
            with contextlib.suppress(Exception):  # a full disk, a cluster that goes away: the session meets it too
                self.note()
                self.store.saved(False)
