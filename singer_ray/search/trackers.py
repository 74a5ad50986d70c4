"""Where the curves of a search go besides the study: TensorBoard, MLflow, Weights & Biases."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from singer_ray.errors import UserError
from singer_ray.search.gauges import ascii_only, describe, figures
from singer_ray.search.observers import Background, Parameters, Watcher, in_short
from singer_ray.storage import without_credentials

TENSORBOARD, MLFLOW_DATABASE, MLFLOW_SERVER = "tensorboard", "mlflow.db", "MLFLOW_TRACKING_URI"


def check_trackers(names: Sequence[str]) -> None:
    """Raises UserError for one that is not installed, or whose server cannot be reached or wants another key."""
    for name in dict.fromkeys(names):
        if name in PACKAGES and importlib.util.find_spec(PACKAGES[name]) is None:
            raise UserError(f"search.trackers names {name!r}, which is not installed: pip install 'singer-ray[{name}]'")
        if name in SERVERS:
            SERVERS[name]()


def make_trackers(
    names: Sequence[str], experiment: str, folder: Path, say: Callable[[str], object]
) -> list[Background]:
    """The trackers of `search.trackers` for a search called `experiment`, whose own files go into `folder`.

    Each is made and works in a thread of its own, so that a slow server delays no trial; one that fails says so once
    and is left out from then on.
    """
    return [Background(name, partial(KINDS[name], experiment, folder), say) for name in dict.fromkeys(names)]


class TensorBoard:
    """FOLDER/tensorboard/007: scalars by epoch, and the parameters for the HParams page."""

    def __init__(self, experiment: str, folder: Path) -> None:
        self.folder = folder / TENSORBOARD
        self.writers: dict[str, _Events] = {}
        self.parameters: dict[str, Parameters] = {}

    def queue(self, trial: str, parameters: Parameters) -> None:
        """Has no curve yet."""

    def start(self, trial: str, parameters: Parameters) -> None:
        self._close(trial)
        self.parameters[trial] = parameters

    def log(self, trial: str, epoch: int, metrics: Mapping[str, Any]) -> None:
        values = figures(metrics)
        writer = self.writers.get(trial) or self._open(trial, epoch, values)
        from tensorboardX.summary import scalar

        for name, value in values.items():
            writer.add(scalar(name, value), epoch)
        writer.flush()

    def end(self, trial: str, state: str, metrics: Mapping[str, Any]) -> None:
        from tensorboardX.proto.api_pb2 import Status
        from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData, SessionEndInfo
        from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata

        if trial in self.writers:
            status = Status.Value("STATUS_FAILURE" if state == "FAIL" else "STATUS_SUCCESS")
            content = HParamsPluginData(session_end_info=SessionEndInfo(status=status), version=0).SerializeToString()
            plugin = SummaryMetadata.PluginData(plugin_name="hparams", content=content)
            value = Summary.Value(tag="_hparams_/session_end_info", metadata=SummaryMetadata(plugin_data=plugin))
            self.writers[trial].add(Summary(value=[value]))
        self._close(trial)

    def close(self) -> None:
        for trial in list(self.writers):
            self._close(trial)

    def _open(self, trial: str, epoch: int, values: Mapping[str, float]) -> _Events:
        from tensorboardX.summary import hparams

        folder = self.folder / trial
        earlier = len(list(folder.glob("events.*")))
        writer = self.writers[trial] = _Events(folder, f".{earlier:03d}")
        if earlier:  # a trial that goes on may report epochs again: what earlier files hold of them is void
            writer.restart(epoch)
        else:
            plain = {n: v if isinstance(v, (bool, int, float)) else str(v) for n, v in self.parameters[trial].items()}
            for summary in hparams(plain, dict.fromkeys(_scores(values), 0.0))[:2]:
                writer.add(summary)
        return writer

    def _close(self, trial: str) -> None:
        if trial in self.writers:
            self.writers.pop(trial).close()


class _Events:
    """A file that TensorBoard reads, written at once.

    tensorboardX's SummaryWriter has a thread for it, which dies of a full disk unheard; then who writes waits forever.
    """

    def __init__(self, folder: Path, suffix: str) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        folder.mkdir(parents=True, exist_ok=True)
        self.kinds: Any = event_pb2
        self.file = EventsWriter(str(folder / "events"), suffix)

    def add(self, summary: Any, step: int | None = None) -> None:
        self.file.write_event(self.kinds.Event(wall_time=time.time(), step=step, summary=summary))

    def restart(self, step: int) -> None:
        """What other files of the folder hold from this step on is void."""
        log = self.kinds.SessionLog(status=self.kinds.SessionLog.START)
        self.file.write_event(self.kinds.Event(wall_time=time.time(), step=step, session_log=log))

    def flush(self) -> None:
        """Raises OSError."""
        self.file.flush()

    def close(self) -> None:
        """Raises OSError."""
        self.file.close()


class MLflow:
    """One run a trial in the MLflow experiment of the search's name, at MLFLOW_TRACKING_URI or in FOLDER/mlflow.db."""

    def __init__(self, experiment: str, folder: Path) -> None:
        self.client = _mlflow(os.environ.get(MLFLOW_SERVER) or f"sqlite:///{folder.absolute() / MLFLOW_DATABASE}")
        self.runs: dict[str, str] = {}
        self.known: dict[str, int] = {}
        found = self.client.get_experiment_by_name(experiment)
        self.experiment = found.experiment_id if found else self.client.create_experiment(experiment)

    @staticmethod
    def check() -> None:
        """Raises UserError when the server does not answer."""
        address = os.environ.get(MLFLOW_SERVER)
        if not address:
            return
        try:
            _mlflow(address).search_experiments(max_results=1)
        except Exception as error:
            raise UserError(
                f"search.trackers names 'mlflow', and {without_credentials(address)} cannot be used: "
                f"{in_short(error).rstrip('.')}. Start the server, correct MLFLOW_TRACKING_URI, or leave mlflow out."
            ) from error

    def queue(self, trial: str, parameters: Parameters) -> None:
        """Gets its run when it starts."""

    def start(self, trial: str, parameters: Parameters) -> None:
        name = trial
        found = self.client.search_runs([self.experiment], f"tags.trial = '{name}'", max_results=1)
        if found:
            self.runs[trial] = found[0].info.run_id
            self.known[trial] = int(found[0].data.metrics.get("epoch", 0))
            self.client.update_run(self.runs[trial], status="RUNNING")
            return
        tags = {"trial": name, "mlflow.note.content": describe(parameters)}
        self.runs[trial] = self.client.create_run(self.experiment, tags=tags, run_name=name).info.run_id
        for knob, value in parameters.items():
            self.client.log_param(self.runs[trial], knob, value)

    def log(self, trial: str, epoch: int, metrics: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric

        if epoch <= self.known.get(trial, 0):
            return  # repeated after a crash: the run has these figures
        now = int(time.time() * 1000)
        values = figures(metrics) | {"epoch": float(epoch)}
        self.client.log_batch(self.runs[trial], [Metric(name, value, now, epoch) for name, value in values.items()])
        self.known[trial] = epoch

    def end(self, trial: str, state: str, metrics: Mapping[str, Any]) -> None:
        if trial not in self.runs:
            return  # no host has had it in this session
        self.client.set_tag(self.runs[trial], "state", state)
        self.client.set_terminated(self.runs[trial], {"COMPLETE": "FINISHED", "PRUNED": "KILLED"}.get(state, "FAILED"))

    def close(self) -> None:
        """Nothing is open."""


class WandB:
    """One run a trial, in a group of the search's name in the project WANDB_PROJECT or `singer_ray`."""

    def __init__(self, experiment: str, folder: Path) -> None:
        import wandb

        self.wandb, self.experiment, self.folder = wandb, experiment, folder
        self.runs: dict[str, Any] = {}

    @staticmethod
    def check() -> None:
        """Raises UserError without a key that the server takes."""
        import wandb

        why = "there is no API key for it"
        try:
            mode = os.environ.get("WANDB_MODE") or wandb.setup().settings.mode
            if mode != "online" or wandb.login(prompt=False):
                return
        except Exception as error:
            why = f"it cannot be used: {in_short(error).rstrip('.')}"
        raise UserError(
            f"search.trackers names 'wandb', and {why}. Run `wandb login`, set WANDB_API_KEY, set WANDB_MODE=offline "
            "and `wandb sync` later, or leave wandb out."
        )

    def queue(self, trial: str, parameters: Parameters) -> None:
        """Gets its run when it starts."""

    def start(self, trial: str, parameters: Parameters) -> None:
        if trial in self.runs:
            return  # its process was replaced; the run is still open
        name = trial
        self.folder.mkdir(parents=True, exist_ok=True)
        self.runs[trial] = self.wandb.init(
            project=os.environ.get("WANDB_PROJECT", "singer_ray"), group=self.experiment, name=name,
            id=re.sub(r"[^\w-]", "-", ascii_only(f"{self.experiment}-{name}"), flags=re.ASCII), resume="allow",
            config=dict(parameters), dir=self.folder, reinit="create_new",
            settings=self.wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True, x_disable_stats=True, init_timeout=30
            ),
        )  # fmt: skip

    def log(self, trial: str, epoch: int, metrics: Mapping[str, Any]) -> None:
        if epoch >= self.runs[trial].step:  # else repeated after a crash: the run has these figures
            self.runs[trial].log(figures(metrics) | {"epoch": epoch}, step=epoch, commit=True)

    def end(self, trial: str, state: str, metrics: Mapping[str, Any]) -> None:
        if trial in self.runs:  # else no host has had it in this session
            self.runs[trial].summary["state"] = state
        self._finish(trial, int(state == "FAIL"))

    def close(self) -> None:
        for trial in list(self.runs):
            self._finish(trial, 0)

    def _finish(self, trial: str, status: int) -> None:
        if trial in self.runs:
            self.runs.pop(trial).finish(exit_code=status)


PACKAGES = {"mlflow": "mlflow", "wandb": "wandb"}
"""What to import for a tracker that is an extra of the package; the extra has the tracker's name."""
SERVERS: dict[str, Callable[[], None]] = {"mlflow": MLflow.check, "wandb": WandB.check}
"""What is asked before a search begins."""
KINDS: dict[str, Callable[[str, Path], Watcher]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}


def _scores(values: Mapping[str, float]) -> list[str]:
    return [name for name in values if name.startswith("val/")] or list(values)


def _mlflow(address: str) -> Any:
    """A client of MLflow."""
    # A server that is gone is noticed in seconds, not in MLflow's quarter of an hour.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # lines about its tables
    return mlflow.MlflowClient(address)
