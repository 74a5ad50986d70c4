"""Curves for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from singer_ray.tracking.figures import figures
from singer_ray.tracking.tracker import Parameters

TENSORBOARD = "tensorboard"


class TensorBoard:
    """FOLDER/tensorboard/007: scalars by epoch, and the parameters for the HParams page."""

    def __init__(self, experiment: str, folder: Path) -> None:
        self.folder = folder / TENSORBOARD
        self.writers: dict[str, Any] = {}
        self.parameters: dict[str, Parameters] = {}

    def start(self, trial: str, parameters: Parameters) -> None:
        self._close(trial)
        self.parameters[trial] = parameters

    def log(self, trial: str, epoch: int, metrics: Mapping[str, Any]) -> None:
        values = figures(metrics)
        writer = self.writers.get(trial) or self._open(trial, epoch, values)
        for name, value in values.items():
            writer.add_scalar(name, value, epoch)
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
            self.writers[trial].file_writer.add_summary(Summary(value=[value]))
        self._close(trial)

    def close(self) -> None:
        for trial in list(self.writers):
            self._close(trial)

    def _open(self, trial: str, epoch: int, values: Mapping[str, float]) -> Any:
        from tensorboardX import SummaryWriter
        from tensorboardX.summary import hparams

        folder = self.folder / trial
        earlier = len(list(folder.glob("events.*")))
        # A trial that goes on may report epochs again: what earlier files hold of them and later ones is void.
        writer = SummaryWriter(str(folder), purge_step=epoch if earlier else None, filename_suffix=f".{earlier:03d}")
        self.writers[trial] = writer
        if not earlier:
            plain = {n: v if isinstance(v, (bool, int, float)) else str(v) for n, v in self.parameters[trial].items()}
            for summary in hparams(plain, dict.fromkeys(_scores(values), 0.0))[:2]:
                writer.file_writer.add_summary(summary)
        return writer

    def _close(self, trial: str) -> None:
        if trial in self.writers:
            self.writers.pop(trial).close()


def _scores(values: Mapping[str, float]) -> list[str]:
    return [name for name in values if name.startswith("val/")] or list(values)
