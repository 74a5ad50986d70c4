"""What a pruner of `search.scheduler` is: the class that each file of this folder extends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

    from singer_ray.config import Config


class Pruner(ABC):
    """A rule that stops trials early.

    It works asynchronously: no trial ever waits for another. It reads the study alone. What it notes in a row is also
    named in study/screened.py; other notes are not read back.
    """

    @abstractmethod
    def make(self, config: Config) -> BasePruner:
        """The Optuna pruner with the settings of `config`."""


def grace(config: Config) -> int:
    """Epochs that every trial gets."""
    return min(config.search.grace_epochs, config.train.epochs)
