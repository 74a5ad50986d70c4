"""The trainable: a light actor per trial, without torch, readable by name in the Ray dashboard."""

from __future__ import annotations

import logging
import uuid
from pathlib import Path
from typing import Any

import ray
from ray.tune import PlacementGroupFactory, Trainable

from singer_ray.ray_cluster import NAMESPACE, ON_HEAD
from singer_ray.search.optuna_search import FAULT

CHECKPOINT, EPOCH = "checkpoint.pt", "epoch"


class DistillationTrial(Trainable):
    """One trial: finds a host, joins it, and asks it for one epoch after the other."""

    def setup(self, config: dict[str, Any]) -> None:
        logging.getLogger("ray.train").setLevel(logging.WARNING)  # a line a checkpoint says nothing
        self.registry_name: str = config["registry"]
        self.number, self.parameters, self.epochs = config["number"], config["parameters"], config["epochs"]
        self.key = (self.trial_id, uuid.uuid4().hex)
        self.checkpoint: bytes | None = None
        self.resumed_from: int | None = None
        self.epoch = 0
        self.failed = False
        self.host: Any = None

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        return PlacementGroupFactory([ON_HEAD])  # CPUs and GPUs belong to the hosts

    def step(self) -> dict[str, Any]:
        fault = None if self.host is not None else self._join()
        result = {FAULT: fault} if fault else ray.get(self.host.epoch.remote(self.key))
        self.failed = FAULT in result
        self.epoch = int(result.get("epoch", self.epoch))
        done = self.failed or self.epoch >= self.epochs
        return {"epoch": self.epoch, "done": done, "resumed_from_epoch": self.resumed_from, **result}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        content = b"" if self.failed else ray.get(self.host.save.remote(self.key))
        (Path(checkpoint_dir) / CHECKPOINT).write_bytes(content)
        (Path(checkpoint_dir) / EPOCH).write_text(str(self.epoch), encoding="utf-8")

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.checkpoint = (Path(checkpoint) / CHECKPOINT).read_bytes()
        self.epoch = self.resumed_from = int((Path(checkpoint) / EPOCH).read_text(encoding="utf-8"))

    def cleanup(self) -> None:
        if self.host is not None:
            self.host.leave.remote(self.key)
            self.host = None  # a handle that is still held when Ray ends this process leaves a traceback
        ray.get_actor(self.registry_name, NAMESPACE).release.remote(self.trial_id)

    def __repr__(self) -> str:
        values = " ".join(f"{name.rpartition('.')[2]}={_short(value)}" for name, value in self.parameters.items())
        return f"trial {self.number} {values}"

    def _join(self) -> str | None:
        registry = ray.get_actor(self.registry_name, NAMESPACE)
        place: Any = ray.get(registry.place.remote(self.trial_id))
        self.host = ray.get_actor(place, NAMESPACE)
        fault: str | None = ray.get(self.host.join.remote(self.key, self.parameters, self.checkpoint))
        return fault


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
