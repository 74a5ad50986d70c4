"""How far a cluster that `ray up` started can grow, by the file that it left on the head.

Ray itself does not say: until the first machine has joined, a cluster that may grow to ten has one node without CPUs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from singer_ray.errors import UserError, printable
from singer_ray.nodes.prices import CLUSTER_FILE
from singer_ray.storage import read_yaml

HEAD = "node:__internal_head__"
"""The resource that only a cluster's head has."""
Resources = Mapping[str, float]


@dataclass(frozen=True)
class NodeType:
    """A kind of machine that the autoscaler starts and ends."""

    name: str
    resources: Resources
    most: int
    """Machines of this type at a time."""


@dataclass(frozen=True)
class ClusterLimits:
    """The workers that a cluster may have beside its head."""

    most: int
    """Of all types together."""
    types: tuple[NodeType, ...] | None
    """None for machines of one's own (`provider: local`), whose size is not known before they have joined."""

    @classmethod
    def of(cls, content: Any) -> ClusterLimits:
        """From the content of a cluster file that `ray up` has resolved. Raises UserError for anything else."""
        try:
            return _limits(content)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{CLUSTER_FILE} on the cluster's head is not a cluster file that `ray up` wrote "
                f"({printable(str(error))}). Run `ray up` again, or remove it if this cluster was started otherwise."
            ) from error

    @property
    def machines(self) -> int:
        """The head included."""
        return self.most + 1

    def places(self, each: Resources) -> int:
        """How many things that need `each` on one machine fit on all workers together."""
        places, left = 0, self.most
        for kind in sorted(self.types or (), key=lambda kind: -fitting(each, kind.resources)):
            places += min(kind.most, left) * fitting(each, kind.resources)
            left -= min(kind.most, left)
        return places


@dataclass(frozen=True)
class Room:
    """How many things of one kind fit on the cluster at a time."""

    now: int
    """On the machines that are there."""
    most: int | None
    """At any time, `now` at least; None while machines of unknown size are still to come."""

    @classmethod
    def of(cls, each: Resources, nodes: Sequence[Resources], limits: ClusterLimits | None) -> Room:
        """For things that need `each` on one node; `nodes` has the resources of those that are alive."""
        head = sum(fitting(each, node) for node in nodes if node.get(HEAD))
        others = sum(fitting(each, node) for node in nodes if not node.get(HEAD))
        if limits is None:
            return cls(head + others, head + others)
        if limits.types is None:
            unknown = len(nodes) < limits.machines and not each.get(HEAD)
            return cls(head + others, None if unknown else head + others)
        return cls(head + others, head + max(others, limits.places(each)))

    def __floordiv__(self, together: int) -> Room:
        """The room for groups of that many."""
        return Room(self.now // together, None if self.most is None else self.most // together)


def fitting(each: Resources, there: Resources) -> int:
    """How many times `each` fits into the resources of one node."""
    return min((_times(name, there.get(name, 0), amount) for name, amount in each.items() if amount), default=0)


def read_limits() -> ClusterLimits | None:
    """Of the cluster whose head this machine is; None where `ray up` has left no file. Raises UserError."""
    file = CLUSTER_FILE.expanduser()
    try:
        known = file.stat()
        return _read(file, known.st_mtime_ns, known.st_size)
    except FileNotFoundError:
        return None
    except (OSError, UserError) as error:
        why = printable(error).rstrip(". ")
        raise UserError(f"{CLUSTER_FILE} on the cluster's head cannot be read: {why}. Run `ray up` again.") from error


@lru_cache(maxsize=1)
def _read(file: Path, mtime: int, size: int) -> ClusterLimits:
    """Cached by time and size: `ray up` may change the file, for example for another max_workers."""
    return ClusterLimits.of(read_yaml(file.read_bytes(), file.name, ""))


def _limits(content: Mapping[str, Any]) -> ClusterLimits:
    provider: Mapping[str, Any] = content["provider"]
    kinds: Mapping[str, Any] = content.get("available_node_types") or {}
    if provider["type"] == "local":
        addresses = provider.get("worker_ips")
        bounds = [int(content[name]) for name in ("max_workers",) if content.get(name) is not None]
        bounds += [len(addresses)] if addresses is not None else []
        return ClusterLimits(min(bounds, default=0), None)
    types = [
        (
            name,
            {str(r): float(n) for r, n in (kind.get("resources") or {}).items()},
            kind.get("max_workers", 0 if name == content.get("head_node_type") else content.get("max_workers")),
        )
        for name, kind in kinds.items()
    ]
    most = content.get("max_workers")
    if most is None:
        most = sum(int(number or 0) for *_, number in types)
    node_types = (NodeType(str(n), resources, min(int(most), int(k or 0))) for n, resources, k in types)
    return ClusterLimits(int(most), tuple(node_types))


def _times(name: str, there: float, amount: float) -> int:
    if name == "GPU" and amount < 1:  # Ray takes a fraction from one GPU, never from two
        return math.floor(there) * math.floor(1 / amount + 1e-9)
    return math.floor(there / amount + 1e-9)
