"""Requests that are repeated while a store cannot be reached."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from singer_ray.errors import UserError
from singer_ray.storage.reading import UnfitError

Result = TypeVar("Result")


def with_retries(attempts: int, act: Callable[[], Result], *, pause: float = 0.5) -> Result:
    """What `act` returns; after a UserError it is called again, up to `attempts` times with growing pauses.

    A refusal for good (UnfitError) is raised at once.
    """
    for attempt in range(attempts):
        try:
            return act()
        except UnfitError:
            raise
        except UserError:
            if attempt == attempts - 1:
                raise
            time.sleep(min(20.0, pause * 2**attempt))
    raise AssertionError("attempts is at least 1")
