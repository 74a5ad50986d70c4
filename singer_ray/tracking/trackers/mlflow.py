"""Curves for MLflow."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from singer_ray.errors import UserError
from singer_ray.storage import without_credentials
from singer_ray.tracking.callback import Parameters
from singer_ray.tracking.figures import describe, figures
from singer_ray.tracking.tracker import Tracker, one_line

MLFLOW_DATABASE, MLFLOW_SERVER = "mlflow.db", "MLFLOW_TRACKING_URI"


class MLflow(Tracker):
    """One run a trial in the MLflow experiment of the search's name, at MLFLOW_TRACKING_URI or in FOLDER/mlflow.db."""

    package = "mlflow"

    def __init__(self, experiment: str, folder: Path) -> None:
        super().__init__(experiment, folder)
        self.client = _mlflow(os.environ.get(MLFLOW_SERVER) or f"sqlite:///{folder.absolute() / MLFLOW_DATABASE}")
        self.runs: dict[str, str] = {}
        self.known: dict[str, int] = {}
        known = self.client.get_experiment_by_name(experiment)
        self.experiment_id = known.experiment_id if known else self.client.create_experiment(experiment)

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
                f"names 'mlflow', and {without_credentials(address)} cannot be used: "
                f"{one_line(error).rstrip('.')}. Start the server, correct MLFLOW_TRACKING_URI, or leave mlflow out."
            ) from error

    def on_trial_start(self, trial: str, parameters: Parameters) -> None:
        name, quote = trial, '"' if "'" in trial else "'"
        runs = self.client.search_runs([self.experiment_id], f"tags.trial = {quote}{name}{quote}", max_results=1)
        if runs:
            self.runs[trial] = runs[0].info.run_id
            self.known[trial] = int(runs[0].data.metrics.get("epoch", 0))
            self.client.update_run(self.runs[trial], status="RUNNING")
            return
        tags = {"trial": name, "mlflow.note.content": describe(parameters)}
        self.runs[trial] = self.client.create_run(self.experiment_id, tags=tags, run_name=name).info.run_id
        for setting, value in parameters.items():
            self.client.log_param(self.runs[trial], setting, value)

    def on_epoch_end(self, trial: str, epoch: int, metrics: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric

        if epoch <= self.known.get(trial, 0):
            return  # repeated after a crash: the run has these figures
        now = int(time.time() * 1000)
        values = figures(metrics) | {"epoch": float(epoch)}
        self.client.log_batch(self.runs[trial], [Metric(name, value, now, epoch) for name, value in values.items()])
        self.known[trial] = epoch

    def on_trial_end(self, trial: str, state: str, metrics: Mapping[str, Any]) -> None:
        if trial not in self.runs:
            return  # no host has had it in this session
        self.client.set_tag(self.runs[trial], "state", state)
        self.client.set_terminated(self.runs[trial], {"COMPLETE": "FINISHED", "PRUNED": "KILLED"}.get(state, "FAILED"))

    def close(self) -> None:
        """Nothing is open."""


def _mlflow(address: str) -> Any:
    """A client of MLflow."""
    # A server that is gone is noticed in seconds, not in MLflow's quarter of an hour.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # lines about its tables
    return mlflow.MlflowClient(address)


TRACKER = MLflow
