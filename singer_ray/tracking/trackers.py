"""Where the curves of a run or of a search go: TensorBoard, MLflow, Weights & Biases."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

from singer_ray.errors import UserError
from singer_ray.tracking.background import Background
from singer_ray.tracking.mlflow import MLflow
from singer_ray.tracking.tensorboard import TensorBoard
from singer_ray.tracking.tracker import Tracker
from singer_ray.tracking.wandb import WandB

PACKAGES = {"mlflow": "mlflow", "wandb": "wandb"}
"""What to import for a tracker that is an extra of the package; the extra has the tracker's name."""
KINDS: dict[str, Callable[[str, Path], Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}
SERVERS: dict[str, Callable[[], None]] = {"mlflow": MLflow.check, "wandb": WandB.check}
"""What is asked before anything begins."""
SEARCH, TRAIN = "search.trackers", "train.trackers"
"""The settings that name trackers."""
_GO_ON = {SEARCH: "the search goes on", TRAIN: "training goes on"}


def check_trackers(names: Sequence[str], setting: str = SEARCH) -> None:
    """Raises UserError for one that is not installed, or whose server cannot be reached or wants another key."""
    for name in dict.fromkeys(names):
        if name in PACKAGES and importlib.util.find_spec(PACKAGES[name]) is None:
            raise UserError(f"{setting} names {name!r}, which is not installed: pip install 'singer-ray[{name}]'")
        try:
            SERVERS.get(name, _nothing)()
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
        Background(name, functools.partial(KINDS[name], experiment, folder), log, _GO_ON[setting])
        for name in dict.fromkeys(names)
    ]


def _nothing() -> None:
    """Has no server."""
