"""Something done every few seconds, whatever the program is waiting for."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Self

EVERY = 15.0
"""Seconds between two notes of what a search has spent: as much is lost when its driver is killed."""


class Beat:
    """Calls `act` every `EVERY` seconds for the block, from a thread of its own.

    What fails is tried again with the next beat: whoever does the same outside the beat says what is wrong.
    """

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="beat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(EVERY):
            with contextlib.suppress(Exception):
                self.act()
