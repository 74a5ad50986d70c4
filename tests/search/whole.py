"""What tests of whole searches share: small settings, a screen that acts on what it reads, and Tune's own records."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import optuna
import pandas as pd

from singer_ray.config import Config, load_preset
from singer_ray.search.driver.searched import Searched
from singer_ray.search.study.opening import load_study, storage_of
from singer_ray.search.study.schema import own_rows
from tests.conftest import SMALL

DIVERGES = 1e30
SPACE: dict[str, Any] = {
    "method.rank": {"type": "int", "low": 2, "high": 16},
    "train.lr": {"type": "choice", "values": [1e-5, 4e-3, DIVERGES]},
}


class Listener(io.StringIO):
    """A terminal's other end. Its plan is words, act, words, act, ...: it acts at the first line that has the words."""

    def __init__(self, *plan: str | Callable[[], None]) -> None:
        super().__init__()
        self.plan: list[Any] = list(plan)

    @property
    def heard(self) -> bool:
        """Whether all has been done."""
        return not self.plan

    def write(self, text: str) -> int:
        if self.plan and self.plan[0] in text:
            _, act, *self.plan = self.plan
            act()
        return super().write(text)


def settings(**more: Any) -> Config:
    return load_preset("demo").override({**SMALL, "train.epochs": 3, "search.grace_epochs": 1, **more})


def study_of(done: Searched) -> optuna.Study:
    return load_study(storage_of(None, done.out), done.out.name)


def rows_by_tune(done: Searched) -> dict[str, tuple[optuna.trial.FrozenTrial, Any, pd.DataFrame]]:
    """Tune's trial id -> the study's row, Tune's trial and Tune's own table of its results."""
    from ray.tune import ExperimentAnalysis

    rows = {row.user_attrs["trial_id"]: row for row in own_rows(study_of(done))}
    analysis = ExperimentAnalysis(str(done.out / "tune" / "session-1"))
    assert rows.keys() == {trial.trial_id for trial in analysis.trials}
    return {t.trial_id: (rows[t.trial_id], t, analysis.trial_dataframes[t.trial_id]) for t in analysis.trials}
