"""Which trial of a search is on which host."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from singer_ray.tracking.callback import Callback

if TYPE_CHECKING:
    from singer_ray.nodes.ray_cluster import Note


class HostRegistry:
    """Which trial is on which host. Runs as a Ray actor.

    There may be more trials than hosts: those announced first are served first. Hosts come and go: a spot machine may
    be taken away, and the autoscaler may never get all that it was asked for. All methods are idempotent.

    Args:
        note: keeps the state for the next incarnation, should this actor die.
    """

    def __init__(self, note: Note) -> None:
        self.note = note
        self._written = note.read() or "{}"
        known = json.loads(self._written)
        self.hosts: list[str] = known.get("hosts", [])
        self.most: int | None = known.get("most")
        self.places: dict[str, str] = known.get("places", {})
        self.since: dict[str, float] = dict.fromkeys(self.places, time.time()) | known.get("since", {})
        """Trial -> Unix seconds at which it got its place."""
        self.queue: list[str] = known.get("queue", [])
        self.retired: set[str] = set(known.get("retired", []))

    def attend(self, hosts: Sequence[str], most: int | None = None) -> tuple[float, dict[str, float]]:
        """These hosts, and no others, are alive now. Trials of the others come first when they ask again.

        No trial gets a place while `most` have one; those that have keep theirs. Returns the time (Unix seconds), and
        since when each trial that has a place has it.
        """
        self.hosts, self.most = list(hosts), most
        for trial in [trial for trial, name in self.places.items() if name not in hosts]:
            del self.places[trial]
            self.queue.insert(0, trial)
        self._write()
        return time.time(), {trial: self.since[trial] for trial in self.places}

    def announce(self, trial: str) -> None:
        """The trial will ask for a place."""
        if trial not in self.queue and trial not in self.places:
            self.queue.append(trial)
            self._write()

    def place(self, trial: str) -> str | None:
        """The name of the trial's host; None while others are before it, "" when the search has ended the trial.

        Asked again it stays the same: the host of a trial whose actor died may still train its epoch, and two hosts
        must not write one checkpoint.
        """
        if trial in self.retired:
            return ""
        if trial not in self.places:
            self.announce(trial)
            taken = set(self.places.values())
            free = [name for name in self.hosts if name not in taken]
            room = len(free) if self.most is None else min(len(free), self.most - len(taken))
            if self.queue.index(trial) >= room:
                return None
            self.queue.remove(trial)
            self.places[trial] = free[0]
            self.since[trial] = time.time()
            self._write()
        return self.places[trial]

    def retire(self, trial: str) -> None:
        """The search has ended the trial: it gets no place any more."""
        self.retired.add(trial)
        self.release(trial)

    def release(self, trial: str) -> None:
        """The trial's actor has ended, or the trial itself."""
        self.places.pop(trial, None)
        self.since.pop(trial, None)
        if trial in self.queue:
            self.queue.remove(trial)
        self._write()

    def _write(self) -> None:
        known = {"hosts": self.hosts, "most": self.most, "places": self.places, "since": self.since}
        text = json.dumps(known | {"queue": self.queue, "retired": sorted(self.retired)})
        if text != self._written:
            self.note.write(text)
            self._written = text


class Places(Callback):
    """Tells the registry of trials as they are asked for and end, even where a trial's actor could not."""

    def __init__(self, registry: Any) -> None:
        self.registry = registry

    def on_trial_queued(self, trial: str, parameters: Mapping[str, Any]) -> None:
        self.registry.announce.remote(trial)

    def on_trial_end(self, trial: str, state: str, metrics: Mapping[str, Any]) -> None:
        self.registry.retire.remote(trial)
