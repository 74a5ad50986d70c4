"""What went wrong with a trial, in words."""

from __future__ import annotations

import ray

from singer_ray.errors import UserError

DIED = "the process or machine died"
MOST = 300
"""Characters."""
_NO_MEMORY, _LOW = "DefaultCPUAllocator", "low on memory"
"""What torch and Ray say; Ray names memory among the possible causes of every death, too."""


def fault_of(error: Exception) -> str | None:
    """Why a trial cannot be trained; None for an error that another try may not meet."""
    import torch

    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or _NO_MEMORY in str(error):
        return (
            f"it does not fit into memory ({_line(error)}). Lower train.batch_size, or give each trial more "
            "(search.gpus_per_trial)"
        )
    return None


def breaks_process(error: Exception) -> bool:
    """Whether nothing can be trained in this process any more: a fault of CUDA leaves its context unusable."""
    return "CUDA error" in str(error)


def in_words(error: BaseException) -> str:
    """An error that Ray carried here, as a line: by what raised it first."""
    first = _first(error)
    if isinstance(first, ray.exceptions.OutOfMemoryError) or (_is_death(first) and _LOW in str(first)):
        return f"{DIED}: Ray ended it because the machine ran low on memory. Lower --concurrent or train.batch_size"
    return DIED if _is_death(first) else f"{type(first).__name__}: {_line(first)}"


def _first(error: BaseException) -> BaseException:
    while True:
        failures = getattr(error, "worker_failures", None) or {}
        behind = [getattr(error, "cause", None), *failures.values(), error.__cause__]
        found = next((cause for cause in behind if isinstance(cause, BaseException)), None)
        if found is None:
            return error
        error = found


def _is_death(error: BaseException) -> bool:
    gone = (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError)
    return isinstance(error, gone)


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:MOST].rstrip(".")
