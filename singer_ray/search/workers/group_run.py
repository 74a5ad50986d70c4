"""The workers of one trial, from outside: what they say, when they may go on, and how they end."""

from __future__ import annotations

import asyncio
from typing import Any

from singer_ray.errors import UserError, user_error_in
from singer_ray.search.study.schema import FAULT
from singer_ray.search.workers.errors import in_words

Key = tuple[str, str]
"""(trial label, incarnation): a late `leave` of an earlier incarnation must not evict a resumed trial."""
ENDING_SECONDS = 15.0
"""For workers that wait between two epochs to end by themselves; after it they are killed."""


class GroupRun:
    """A trial's workers, as their WorkerGroupActor sees them; `fit` is the call that trains in them."""

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
