"""Curves for TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from singer_ray.layout import TENSORBOARD
from singer_ray.tracking.callback import Parameters
from singer_ray.tracking.figures import figures
from singer_ray.tracking.tracker import Tracker


class TensorBoard(Tracker):
    """FOLDER/tensorboard/007: scalars by epoch, and the parameters for the HParams page."""

    def __init__(self, experiment: str, folder: Path) -> None:
        super().__init__(experiment, folder / TENSORBOARD)
        self.writers: dict[str, _Events] = {}
        self.parameters: dict[str, Parameters] = {}

    def on_trial_start(self, trial: str, parameters: Parameters) -> None:
        self._close(trial)
        self.parameters[trial] = parameters

    def on_epoch_end(self, trial: str, epoch: int, metrics: Mapping[str, Any]) -> None:
        values = figures(metrics)
        writer = self.writers.get(trial) or self._open(trial, epoch, values)
        from tensorboardX.summary import scalar

        for name, value in values.items():
            writer.add(scalar(name, value), epoch)
        writer.flush()

    def on_trial_end(self, trial: str, state: str, metrics: Mapping[str, Any]) -> None:
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


def _scores(values: Mapping[str, float]) -> list[str]:
    return [name for name in values if name.startswith("val/")] or list(values)


TRACKER = TensorBoard
