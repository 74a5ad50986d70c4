"""What the first worker of a Ray Train run tells the process that started it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

Tell = Callable[[str, Any], None]
"""Kind of a message, and its content."""
_OVER = "over"


class Teller:
    """Sends messages, from any process of the cluster; each has arrived when the call returns."""

    def __init__(self, box: Queue) -> None:
        self.box = box

    def __call__(self, kind: str, content: Any) -> None:
        self.box.put((kind, content))


@contextlib.contextmanager
def heard(listeners: Mapping[str, Callable[[Any], object]]) -> Iterator[Tell]:
    """Gives a function that calls one of `listeners` here, by the kind of the message, wherever it is called itself.

    They are called one after another, in a thread; at the end all that was told has been heard. An error in a
    listener is raised at the end, unless another error is.
    """
    import ray

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    box = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    errors: list[BaseException] = []

    def listen() -> None:
        while True:
            try:
                kind, content = box.get(timeout=1.0)
            except Empty:
                continue
            except Exception:  # its actor is gone, and this machine with it
                return
            if kind == _OVER:
                return
            try:
                if not errors:
                    listeners[kind](content)
            except BaseException as error:
                errors.append(error)

    thread = threading.Thread(target=listen, name="messages", daemon=True)
    thread.start()
    try:
        yield Teller(box)
        with contextlib.suppress(Exception):
            box.put((_OVER, None))
        thread.join()
        if errors:
            raise errors[0]
    finally:
        with contextlib.suppress(Exception):
            box.put((_OVER, None))
        thread.join(10.0)
        with contextlib.suppress(Exception):
            box.shutdown(force=True)
