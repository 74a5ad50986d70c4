"""Where the curves of a run or of a search go. Each file of this folder is a tracker, known by the file's name."""

from __future__ import annotations

import functools
import importlib.util
import pkgutil
from collections.abc import Callable, Sequence
from pathlib import Path

from singer_ray.errors import UserError
from singer_ray.tracking.background import Background
from singer_ray.tracking.tracker import Tracker

SEARCH, TRAIN = "search.trackers", "train.trackers"
"""The settings that name trackers."""
_GO_ON = {SEARCH: "the search goes on", TRAIN: "training goes on"}


def tracker_names() -> list[str]:
    """What the settings may name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def tracker_class(name: str) -> type[Tracker]:
    """The tracker of that name. Its library is not imported before one is made or checked."""
    tracker: type[Tracker] = importlib.import_module(f"{__name__}.{name}").TRACKER
    return tracker


def check_trackers(names: Sequence[str], setting: str = SEARCH) -> None:
    """Raises UserError for one that is not installed, or whose server cannot be reached or wants another key."""
    for name in dict.fromkeys(names):
        tracker = tracker_class(name)
        if tracker.package is not None and importlib.util.find_spec(tracker.package) is None:
            raise UserError(f"{setting} names {name!r}, which is not installed: pip install 'singer-ray[{name}]'")
        try:
            tracker.check()
        except UserError as error:
            raise UserError(f"{setting} {error}") from error


def make_trackers(
    names: Sequence[str], experiment: str, folder: Path, log: Callable[[str], object], *, setting: str = SEARCH
) -> list[Background]:
    """The trackers that `setting` names for an `experiment`, whose own files go into `folder`.

    Each is made and works in a thread of its own, so that a slow server delays no training; one that fails says so
    once and is left out from then on.
    """
    return [
        Background(name, functools.partial(tracker_class(name), experiment, folder), log, _GO_ON[setting])
        for name in dict.fromkeys(names)
    ]
