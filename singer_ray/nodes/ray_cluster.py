"""The Ray cluster that a command runs on: what it offers now, how far it can grow, and what all its nodes share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from singer_ray.errors import UserError, user_error_in
from singer_ray.nodes.limits import HEAD, ClusterLimits, Room, read_limits
from singer_ray.nodes.ray_start import NAMESPACE as NAMESPACE
from singer_ray.nodes.ray_start import connected as connected
from singer_ray.storage.address import absolute, own_name

ON_HEAD = {HEAD: 0.001}
"""Places a light actor on the head node, where it does not die with a spot machine."""
LOOK, SAY = 2.0, 30.0
"""Seconds between two checks for new machines, and between two lines that say there are none."""
GPU_PATIENCE = 300.0
"""Seconds that a command waits for machines that may have a GPU while none has. Their set-up takes half of that."""
_ANSWER = 60.0
"""Seconds in which the head must have read a file."""


def limits() -> ClusterLimits | None:
    """How far the cluster can grow; None for one of fixed size. Raises UserError for an unreadable cluster file."""
    import ray
    from ray._private import worker

    if worker._global_node is None or worker._global_node.is_head():
        return None  # started by this process: nothing joins it, and a cluster file here is of another cluster
    head = next((node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get(HEAD)), None)
    if head is None:
        return None
    if head == ray.get_runtime_context().get_node_id():
        return read_limits()
    return _limits_there(ray.get_runtime_context().gcs_address)


@cache
def _limits_there(cluster: str) -> ClusterLimits | None:
    """Of a cluster whose head is another machine, which reads the file itself and sends only the limits."""
    import ray

    task: Any = ray.remote(num_cpus=0, resources=ON_HEAD)(read_limits)
    try:
        answer: ClusterLimits | None = ray.get(task.remote(), timeout=_ANSWER)
    except ray.exceptions.GetTimeoutError as error:
        raise UserError(
            f"The cluster's head has not answered for {_ANSWER:.0f} s. Look at `ray status` there."
        ) from error
    except ray.exceptions.RayError as error:
        raise user_error_in(error) from error
    return answer


def nodes() -> list[Mapping[str, float]]:
    """The resources of each node that is alive."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def room(each: Mapping[str, float]) -> Room:
    """How many things that need `each` on one node fit: now, and once the cluster has all its machines."""
    return Room.of(each, nodes(), limits())


def wait_for_room(each: Mapping[str, float], count: int, what: str, log: Callable[[str], None]) -> None:
    """Blocks until there is room for `count` of `what`, or the autoscaler can make it.

    Machines of one's own join minutes after `ray up`, and their resources are not known before. Until all have joined,
    `log` receives how many have. Raises UserError when there will never be room.
    """
    said = float("-inf")
    while True:
        space = room(each)
        if space.now >= count or (space.most is not None and space.most >= count):
            return
        if space.most is not None:
            raise UserError(
                f"No room for {what} ({words(each)} each, on one node): {describe()} can never offer room for more "
                f"than {space.most}. Lower --workers, search.cpus_per_trial or search.gpus_per_trial, or connect to a "
                "larger cluster (RAY_ADDRESS)."
            )
        if time.monotonic() - said >= SAY:
            said = time.monotonic()
            there = f"room for {space.now} of {what}" if space.now else f"no room for {what}"
            log(f"waiting for machines: {machines()} here, with {there} ({words(each)} each); Ctrl-C ends this")
        time.sleep(LOOK)


def has_gpus(log: Callable[[str], None] | None = None) -> bool:
    """Whether the cluster has, or can get, a GPU.

    Where that depends on machines that have yet to join it waits for them, up to `GPU_PATIENCE`, and says so.
    """
    begin, said = time.monotonic(), float("-inf")
    while True:
        space = room({"GPU": 1})
        if space.most is not None or space.now or log is None or time.monotonic() - begin > GPU_PATIENCE:
            return bool(space.now or space.most)
        if time.monotonic() - said >= SAY:
            said = time.monotonic()
            log(
                f"waiting for machines that may have GPUs: {machines()} here, without one; "
                "--train.device cpu starts at once"
            )
        time.sleep(LOOK)


def words(each: Mapping[str, float]) -> str:
    """`4 CPUs and 1 GPU`."""
    amounts = [f"{amount:g} {name}{'s' * (amount != 1)}" for name, amount in each.items() if amount and name != HEAD]
    return " and ".join(amounts) or "nothing"


def machines() -> str:
    """`1 of 3 machines is`: how many have joined of how many can."""
    there, most = len(nodes()), limits()
    of = f" of {most.machines}" if most and most.machines > there else ""
    many = most.machines if of and most else there
    return f"{there}{of} machine{'s' * (many != 1)} {'is' if there == 1 else 'are'}"


def shared_storage(given: str | None, out: Path) -> str | None:
    """The address that all nodes share; None when the cluster is this one machine.

    Raises UserError when the cluster has, or will have, several nodes and nothing that they share is named.
    """
    if given is not None:
        return absolute(given)
    most, now = limits(), len(nodes())
    if now > 1 or (most is not None and most.most):
        many = f"has {now} nodes" if now > 1 or most is None else f"grows to {most.machines} nodes"
        raise UserError(
            f"This Ray cluster {many}, and {out} is on one of them only: the others could not save there. "
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
    """A short text under a name, kept on the head while the cluster lives: it outlives the actor that wrote it."""

    def __init__(self, name: str) -> None:
        self.key = f"{NAMESPACE}:{name}".encode()

    def read(self) -> str | None:
        """None when there is none."""
        from ray.experimental.internal_kv import _internal_kv_get

        value: bytes | None = _internal_kv_get(self.key)
        return None if value is None else value.decode()

    def write(self, text: str) -> None:
        """Replaces an earlier one."""
        from ray.experimental.internal_kv import _internal_kv_put

        _internal_kv_put(self.key, text.encode())

    def delete(self) -> None:
        """If it is there."""
        from ray.experimental.internal_kv import _internal_kv_del

        _internal_kv_del(self.key)


def describe() -> str:
    """The cluster in a few words."""
    there, most = nodes(), limits()
    cpus, gpus = (sum(node.get(name, 0) for node in there) for name in ("CPU", "GPU"))
    parts = [f"{cpus:g} CPU{'s' * (cpus != 1)}"] + ([f"{gpus:g} GPU{'s' * (gpus != 1)}"] if gpus else [])
    of = f" (of at most {most.machines})" if most and most.machines > len(there) else ""
    return f"a Ray cluster of {len(there)} node{'s' * (len(there) != 1)}{of} with {' and '.join(parts)}"
