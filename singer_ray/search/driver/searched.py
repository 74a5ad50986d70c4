"""What a search returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from singer_ray.search.study.objectives import Objectives

if TYPE_CHECKING:
    from singer_ray.config import Config
    from singer_ray.search.state.store import SearchStore


@dataclass(frozen=True)
class Searched:
    """A finished search."""

    out: Path
    """Its folder: leaderboard.parquet and .csv, study.journal, best/."""
    leaderboard: pd.DataFrame
    """One row a trial, the best first."""
    objectives: Objectives
    """What was optimised."""
    best: tuple[Path, ...]
    """The folders of the best students, the best first."""
    config: Config
    """What the search was run with."""
    store: SearchStore
    """Where its state is."""

    @property
    def metric(self) -> str:
        """The first objective."""
        return self.objectives.first

    def __repr__(self) -> str:
        best = f", the best {self.best[0].name}" if self.best else ""
        return f"Searched({str(self.out)!r}: {len(self.leaderboard)} trials by {self.objectives}{best})"
