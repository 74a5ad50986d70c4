"""The Ray cluster that a command runs on: a running one, or one that it starts on this machine."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from singer_ray.errors import UserError
from singer_ray.storage.address import absolute, own_name

NAMESPACE = "singer_ray"
ON_HEAD = {"node:__internal_head__": 0.001}
"""A place on the head node, next to the driver: for light actors that must not die with a spot machine."""


@contextmanager
def connected(name: str | None = None) -> Iterator[None]:
    """Connects to the cluster of RAY_ADDRESS or of this machine, else starts one here; leaves what was there before.

    The dashboard's Jobs page shows `name`. Ray's usage statistics stay off unless RAY_USAGE_STATS_ENABLED says
    otherwise. Raises UserError when there is an address and nothing behind it.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.job_config import JobConfig

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    # Ray Train's clean-up thread asks "which cluster?" and dies where it sees two, unless it is told.
    env = {"RAY_ADDRESS": address} if address else {}
    job = JobConfig(metadata={"job_name": name} if name else {})
    try:
        ray.init(
            namespace=NAMESPACE, runtime_env={"env_vars": env} if env else None, logging_level=logging.ERROR,
            job_config=job,
        )  # fmt: skip
    except Exception as error:  # Ray raises bare ones too, such as for a node that takes too long to start
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise UserError(
            f"The Ray cluster at {address or 'this machine'} cannot be reached: {reason}. Start one with "
            "`ray start --head`, correct RAY_ADDRESS, or unset it to run on this machine alone."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def resources() -> dict[str, float]:
    """What the cluster can ever offer: with an autoscaler its limits, else what its nodes have."""
    import ray
    from ray._private.state import state

    most = state.get_max_resources_from_cluster_config() or {}
    now = ray.cluster_resources()
    return {name: max(float(most.get(name, 0)), float(now.get(name, 0))) for name in {*most, *now}}


def places(each: Mapping[str, float]) -> int:
    """How many of something that holds `each` on one node the cluster can have at one time."""
    import ray

    def times(there: Mapping[str, float]) -> int:
        return min(_fitting(name, there.get(name, 0), amount) for name, amount in each.items() if amount)

    most, now = resources(), ray.cluster_resources()
    if any(most.get(name, 0) > now.get(name, 0) for name in each):  # machines to come, of a size that is not known
        return times(most)
    return sum(times(node["Resources"]) for node in ray.nodes() if node["Alive"])


def _fitting(name: str, there: float, amount: float) -> int:
    """How often `amount` fits into what one node has."""
    if name == "GPU" and amount < 1:  # Ray takes a fraction from one GPU, never from two
        return math.floor(there) * math.floor(1 / amount + 1e-9)
    return math.floor(there / amount + 1e-9)


def has_gpus() -> bool:
    """Whether the cluster has, or can get, a GPU."""
    return resources().get("GPU", 0) > 0


def require(needed: Mapping[str, float], what: str) -> None:
    """Raises UserError when the cluster can never offer `needed` at one time."""
    there = resources()
    for name, amount in needed.items():
        if amount > there.get(name, 0):
            raise UserError(
                f"{what} needs {amount:g} {name}; this Ray cluster can never offer more than {there.get(name, 0):g}. "
                "Ask for less, or connect to a larger cluster (RAY_ADDRESS)."
            )


def shared_storage(given: str | None, out: Path) -> str | None:
    """The address that all nodes share; None when everything is on this one machine.

    Raises UserError when the cluster has several nodes and nothing that they share is named.
    """
    import ray

    if given is not None:
        return absolute(given)
    nodes = sum(node["Alive"] for node in ray.nodes())
    if nodes > 1:
        raise UserError(
            f"This Ray cluster has {nodes} nodes, and {out} is on one of them only: the others could not save there. "
            "Use --storage s3://BUCKET/PREFIX, or --storage FOLDER with a folder that all nodes mount."
        )
    return None


def storage(given: str | None, out: Path, name: str) -> tuple[str, str]:
    """Where Ray keeps a run's state, as (path, folder in it): OUT/`name`, or OUT's name under the `given` address.

    Raises UserError as `shared_storage` does.
    """
    shared = shared_storage(given, out)
    return (shared, own_name(out)) if shared is not None else (str(out.absolute()), name)


def is_alive(actor: Any) -> bool:
    """Whether an actor runs: it has a place, and has not died or is back again."""
    from ray._private.state import actors

    return bool(actors(actor._actor_id.hex()).get("State") == "ALIVE")


class Note:
    """A short text under a name, kept on the head as long as the cluster lives: it outlives the actor that wrote it."""

    def __init__(self, name: str) -> None:
        self.key = f"{NAMESPACE}:{name}".encode()

    def read(self) -> str | None:
        """None when there is none."""
        from ray.experimental.internal_kv import _internal_kv_get

        found: bytes | None = _internal_kv_get(self.key)
        return None if found is None else found.decode()

    def write(self, text: str) -> None:
        """Over an earlier one."""
        from ray.experimental.internal_kv import _internal_kv_put

        _internal_kv_put(self.key, text.encode())

    def delete(self) -> None:
        """If it is there."""
        from ray.experimental.internal_kv import _internal_kv_del

        _internal_kv_del(self.key)


def describe() -> str:
    """The cluster in a few words."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    there = ray.cluster_resources()
    parts = [f"{there.get('CPU', 0):g} CPUs"] + ([f"{there['GPU']:g} GPUs"] if there.get("GPU") else [])
    return f"a Ray cluster of {len(nodes)} node{'s' * (len(nodes) > 1)} with {' and '.join(parts)}"


def user_error_in(error: Exception) -> Exception:
    """The UserError behind an exception that Ray carried here; `error` itself when there is none."""
    queue: list[BaseException] = [error]
    while queue:
        found = queue.pop()
        if isinstance(found, UserError):
            return UserError(str(found.args[0]) if found.args else str(found))
        failures = getattr(found, "worker_failures", None) or {}
        behind = [getattr(found, "cause", None), found.__cause__, *failures.values()]
        queue += [cause for cause in behind if isinstance(cause, BaseException)]
    return error
