"""Curves for Weights & Biases."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from singer_ray.errors import UserError
from singer_ray.tracking.callback import Parameters
from singer_ray.tracking.figures import ascii_only, figures
from singer_ray.tracking.tracker import Tracker, one_line


class WandB(Tracker):
    """One run a trial, in a group of the search's name in the project WANDB_PROJECT or `singer_ray`."""

    package = "wandb"

    def __init__(self, experiment: str, folder: Path) -> None:
        import wandb

        super().__init__(experiment, folder)
        self.wandb = wandb
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
            why = f"it cannot be used: {one_line(error).rstrip('.')}"
        raise UserError(
            f"names 'wandb', and {why}. Run `wandb login`, set WANDB_API_KEY, set WANDB_MODE=offline "
            "and `wandb sync` later, or leave wandb out."
        )

    def on_trial_start(self, trial: str, parameters: Parameters) -> None:
        if trial in self.runs:
            return  # its process was replaced; the run is still open
        name = trial
        self.folder.mkdir(parents=True, exist_ok=True)
        self.runs[trial] = self.wandb.init(
            project=os.environ.get("WANDB_PROJECT", "singer_ray"),
            group=self.experiment,
            name=name,
            id=re.sub(r"[^\w-]", "-", ascii_only(f"{self.experiment}-{name}"), flags=re.ASCII),
            resume="allow",
            config=dict(parameters),
            dir=self.folder,
            reinit="create_new",
            settings=self.wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                x_disable_stats=True,
                init_timeout=30,
                x_disable_meta=True,  # the command line, with the passwords in it
            ),
        )

    def on_epoch_end(self, trial: str, epoch: int, metrics: Mapping[str, Any]) -> None:
        if epoch >= self.runs[trial].step:  # else repeated after a crash: the run has these figures
            self.runs[trial].log(figures(metrics) | {"epoch": epoch}, step=epoch, commit=True)

    def on_trial_end(self, trial: str, state: str, metrics: Mapping[str, Any]) -> None:
        if trial in self.runs:  # else no host has had it in this session
            self.runs[trial].summary["state"] = state
        self._finish(trial, int(state == "FAIL"))

    def close(self) -> None:
        for trial in list(self.runs):
            self._finish(trial, 0)

    def _finish(self, trial: str, status: int) -> None:
        if trial in self.runs:
            self.runs.pop(trial).finish(exit_code=status)


TRACKER = WandB
