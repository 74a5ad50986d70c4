"""What a tracker of curves is."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from singer_ray.errors import printable
from singer_ray.storage import without_credentials
from singer_ray.tracking.callback import Callback


class Tracker(Callback):
    """Sends the curves of trials somewhere. Its module, a file of trackers/, names it as TRACKER.

    Args:
        experiment: the name that the runs of this search share.
        folder: for files of its own.
    """

    package: ClassVar[str | None] = None
    """What must be importable, where the tracker is an extra of this package; the extra has the tracker's name."""

    def __init__(self, experiment: str, folder: Path) -> None:
        self.experiment, self.folder = experiment, folder

    @staticmethod
    def check() -> None:
        """Called before anything begins. Raises UserError when the tracker's server cannot be used."""


def one_line(error: BaseException) -> str:
    """An error in one short line, without passwords."""
    return printable(without_credentials(str(error))) or type(error).__name__
