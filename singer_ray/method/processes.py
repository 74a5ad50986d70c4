"""What the processes that train one student together must agree on: the state that their steps change."""

from __future__ import annotations

import torch
from torch import distributed


def mean_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The mean of equally shaped values over all processes; the values themselves where there is one process."""
    if processes() == 1:
        return values
    total = values.clone()
    distributed.all_reduce(total)
    return total / processes()


def gathered(rows: torch.Tensor) -> torch.Tensor:
    """The rows of all processes in the order of their ranks, which is that of the whole batch; without gradient."""
    rows = rows.detach().contiguous()
    if processes() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(processes())]
    distributed.all_gather(parts, rows)
    return torch.cat(parts)


def processes() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
