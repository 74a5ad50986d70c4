"""What went wrong with a trial, in words."""

from __future__ import annotations

import ray

from singer_ray.errors import UserError, first_line, root_cause

DIED = "the process or machine died"
MOST = 300
"""Characters."""
_NO_MEMORY, _LOW = "DefaultCPUAllocator", "low on memory"
"""What torch and Ray say; Ray names memory among the possible causes of every death, too."""


def trial_error(error: Exception) -> str | None:
    """Why a trial cannot be trained, in words; None for an error that another try may not meet."""
    import torch

    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or _NO_MEMORY in str(error):
        return (
            f"it does not fit into memory ({first_line(error)[:MOST]}). Lower train.batch_size, or give each trial "
            "more (search.gpus_per_trial)"
        )
    return None


def breaks_process(error: Exception) -> bool:
    """Whether nothing can be trained in this process any more: an error of CUDA leaves its context unusable."""
    return "CUDA error" in str(error)


def in_words(error: BaseException) -> str:
    """An error that Ray carried here, as a line: by what raised it first."""
    first = root_cause(error)
    if isinstance(first, ray.exceptions.OutOfMemoryError) or (_is_death(first) and _LOW in str(first)):
        return f"{DIED}: Ray ended it because the machine ran low on memory. Lower --concurrent or train.batch_size"
    return DIED if _is_death(first) else f"{type(first).__name__}: {first_line(first)[:MOST]}"


def _is_death(error: BaseException) -> bool:
    gone = (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError)
    return isinstance(error, gone)
