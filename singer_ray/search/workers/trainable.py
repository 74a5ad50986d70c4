"""The trainable: a light actor per trial, without torch, readable by name in the Ray dashboard."""

from __future__ import annotations

import logging
import signal
import threading
import time
import uuid
from typing import Any

import ray
from ray.tune import PlacementGroupFactory, Trainable

from singer_ray.nodes.ray_cluster import NAMESPACE, ON_HEAD
from singer_ray.search.study.schema import FAULT, REMARK, RESUMED, TAKEN, WAITED
from singer_ray.search.watch.prometheus import QUEUED, TrialGauges, describe

POLL = 0.1
"""Seconds between two looks for a free host."""

CLEANUP = 5.0
"""Seconds that a trial waits at its end, at most, for its place to be released."""


class DistillationTrial(Trainable):
    """One trial: finds a host, joins it, and asks it for one epoch after the other.

    The host keeps the checkpoints. Whatever dies (this actor, the host, the driver, the cluster), the next incarnation
    goes on from the last checkpoint. Its first result is the one saved with it, since that report may have been lost.
    """

    def setup(self, config: dict[str, Any]) -> None:
        logging.getLogger("ray.train").setLevel(logging.WARNING)
        self.registry_name: str = config["registry"]
        self.label, self.parameters, self.overrides = config["label"], config["parameters"], config["overrides"]
        self.epochs: int = config["epochs"]
        self.key = (self.label, uuid.uuid4().hex)
        self.resumed_from: int | None = None
        self.host: Any = None
        self.waited = 0.0
        self.taken: float | None = None
        self.gauges = TrialGauges(self.label, self.parameters, config["experiment"])

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        return PlacementGroupFactory([ON_HEAD])  # CPUs and GPUs belong to the hosts

    def step(self) -> dict[str, Any]:
        result = (None if self.host is not None else self._join()) or ray.get(self.host.epoch.remote(self.key))
        epoch = int(result.get("epoch", 0))
        self.gauges.set(result)
        done = FAULT in result or epoch >= self.epochs
        known: dict[str, Any] = {"epoch": epoch, "done": done, RESUMED: self.resumed_from, WAITED: self.waited}
        known |= {} if self.taken is None else {TAKEN: self.taken}
        known |= {REMARK: self.gauges.remark} if self.gauges.remark else {}
        return {**known, **result}

    def cleanup(self) -> None:
        self.gauges.close()
        if self.host is not None:
            self.host.leave.remote(self.key)
            self.host = None  # a handle that is still held when Ray ends this process leaves a traceback
        released: Any = ray.get_actor(self.registry_name, NAMESPACE).release.remote(self.label)
        ray.wait([released], timeout=CLEANUP)
        # Ray ends this process next, by SIGTERM. Its own handler raises wherever Python happens to be, which at an
        # interpreter's end prints a traceback; nothing is left that would have to be put in order.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def __repr__(self) -> str:
        return f"trial {self.label} {describe(self.parameters)}"

    def _join(self) -> dict[str, Any] | None:
        """Waits for a host and joins it. Returns what `join` of the host returns; None for a trial that starts."""
        registry = ray.get_actor(self.registry_name, NAMESPACE)
        self.gauges.set({QUEUED: 1})
        place: Any = None
        begin = time.monotonic()
        while (place := ray.get(registry.place.remote(self.label))) is None or (place and not _answers(place)):
            time.sleep(POLL)
        self.waited = time.monotonic() - begin
        if not place:
            return {"done": True}
        self.taken = time.time()
        self.gauges.set({QUEUED: 0})
        self.host = ray.get_actor(place, NAMESPACE)
        result: dict[str, Any] | None = ray.get(self.host.join.remote(self.key, self.overrides))
        if result is not None:
            self.resumed_from = result.get("epoch")
        return result


def _answers(host: str) -> bool:
    """Whether a host is alive. The registry still lists one that died until the search looks again."""
    try:
        ray.get(ray.get_actor(host, NAMESPACE).ping.remote())
    except (ray.exceptions.RayActorError, ValueError):
        return False
    return True
