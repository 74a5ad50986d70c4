"""A driver that dies before any one write to the study, or whose copy lags behind: the search ends as if it had not."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import pytest
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage

from singer_ray.config import load_preset
from singer_ray.search.driver.ask_tell import AskTell, StudySpec
from singer_ray.search.space.space import load_space
from singer_ray.search.strategy.pruners import make_pruner
from singer_ray.search.strategy.samplers import make_sampler
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.opening import create_study, load_study
from singer_ray.search.study.running import Assignment
from singer_ray.search.study.schema import HISTORY
from tests.search.studies import MIOU, TWO

EPOCHS, TRIALS = 4, 5
SPACE = {
    "method.refiner": {"type": "choice", "values": ["singer", "none"]},
    "method.rank": {"type": "int", "low": 2, "high": 16, "when": {"method.refiner": "singer"}},
    "train.lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2},
}


class Died(Exception):  # noqa: N818 - an event
    """The driver was killed."""


class Mortal(InMemoryStorage):
    """A storage whose driver dies before the write that `left` counts down to; keeps a copy of itself at each."""

    def __init__(self) -> None:
        super().__init__()
        self.left = math.inf
        self.writes = 0

    def _write(self) -> None:
        self.writes += 1
        self.left -= 1
        if self.left < 0:
            raise Died

    def create_new_trial(self, *given: Any, **named: Any) -> int:
        self._write()
        return super().create_new_trial(*given, **named)

    def set_trial_param(self, *given: Any, **named: Any) -> None:
        self._write()
        super().set_trial_param(*given, **named)

    def set_trial_state_values(self, *given: Any, **named: Any) -> bool:
        self._write()
        return super().set_trial_state_values(*given, **named)

    def set_trial_intermediate_value(self, *given: Any, **named: Any) -> None:
        self._write()
        super().set_trial_intermediate_value(*given, **named)

    def set_trial_system_attr(self, *given: Any, **named: Any) -> None:
        self._write()
        super().set_trial_system_attr(*given, **named)

    def set_trial_user_attr(self, *given: Any, **named: Any) -> None:
        self._write()
        super().set_trial_user_attr(*given, **named)


class Search:
    """A search without training: what a trial reports follows from its parameters, and it has a checkpoint."""

    def __init__(self, scheduler: str, sampler: str, objectives: Objectives) -> None:
        self.config = load_preset("demo").override(
            {
                "search.scheduler": scheduler,
                "search.sampler": sampler,
                "train.epochs": EPOCHS,
                "search.grace_epochs": 1,
                "search.reduction_factor": 2,
                "search.startup_trials": 2,
                "search.trials": TRIALS,
            }
        )
        self.space, self.objectives = load_space(SPACE, self.config), objectives
        self.storage = Mortal()
        create_study(self.storage, "s", objectives)
        self.checkpoints: dict[str, int] = {}
        """Label -> epoch."""
        self.past: list[tuple[InMemoryStorage, dict[str, int]]] = []

    def sampler(self, number: int) -> BaseSampler:
        return make_sampler(self.config, self.space, self.objectives, number=number)

    def drive(self) -> None:
        """A session: to the end, or until it dies."""
        ask_tell = AskTell(
            load_study(self.storage, "s"),
            StudySpec(self.space, self.objectives, EPOCHS, TRIALS, "/x"),
            pruner=make_pruner(self.config),
            sampler_of=self.sampler,
        )
        while (trial := ask_tell.ask("t")) is not None:
            self.train(ask_tell, trial)
        ask_tell.close()

    def train(self, ask_tell: AskTell, trial: Assignment) -> None:
        epoch = self.checkpoints.get(trial.label, 0)
        result: dict[str, Any] = {}
        if epoch:
            history = [[e, self.result(trial.parameters, e)] for e in range(1, epoch)]
            result = {**self.result(trial.parameters, epoch), HISTORY: history}
            ask_tell.report(trial.number, result)
        while epoch < EPOCHS and not (result and ask_tell.should_stop(trial.number)):
            epoch += 1
            self.checkpoints[trial.label] = epoch
            result = self.result(trial.parameters, epoch)
            ask_tell.report(trial.number, result)
        ask_tell.end(trial.number, result)

    def result(self, parameters: Mapping[str, Any], epoch: int) -> dict[str, Any]:
        rate = abs(math.log10(parameters["train.lr"]) + 3)
        value = (1 - 0.3 * rate + 0.01 * parameters.get("method.rank", 0)) * (1 - math.exp(-epoch / (2 + rate)))
        return {"epoch": epoch, "val/miou": value, "student/parameters": float(parameters.get("method.rank", 1))}

    def rows(self) -> list[tuple[Any, ...]]:
        return [
            (row.number, row.state.name, row.params, row.values, row.intermediate_values, _notes(row.system_attrs))
            for row in load_study(self.storage, "s").trials
        ]


def _notes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What the pruner and, with several objectives, the ledger keep of each epoch."""
    return {key: value for key, value in attributes.items() if "rung" in key or key.startswith("epoch:")}


CASES = [
    ("asha", "tpe", MIOU),
    ("asha", "tpe", TWO),
    ("hyperband", "random", MIOU),
    ("median", "tpe", MIOU),
    ("none", "random", TWO),
]


@pytest.mark.slow
@pytest.mark.parametrize(("scheduler", "sampler", "objectives"), CASES, ids=lambda case: str(case).replace(" ", ""))
def test_it_ends_the_same_whichever_write_it_died_before(scheduler: str, sampler: str, objectives: Objectives) -> None:
    whole = Search(scheduler, sampler, objectives)
    whole.drive()
    states = {state for _, state, *_ in whole.rows()}
    assert states == ({"COMPLETE"} if scheduler == "none" else {"COMPLETE", "PRUNED"})
    for write in range(whole.storage.writes):
        cut = Search(scheduler, sampler, objectives)
        cut.storage.left = write
        with pytest.raises(Died):
            cut.drive()
        cut.storage.left = math.inf
        cut.drive()
        assert cut.rows() == whole.rows(), f"died before write {write}"


@pytest.mark.slow
@pytest.mark.parametrize(("scheduler", "sampler", "objectives"), CASES, ids=lambda case: str(case).replace(" ", ""))
@pytest.mark.parametrize("behind", [3, 20])
def test_it_ends_the_same_from_a_copy_that_is_behind_the_checkpoints(
    scheduler: str, sampler: str, objectives: Objectives, behind: int
) -> None:
    whole = Search(scheduler, sampler, objectives)
    whole.drive()
    for write in range(0, whole.storage.writes - behind, 5):
        cut = Search(scheduler, sampler, objectives)
        cut.storage.left = write
        with pytest.raises(Died):
            cut.drive()
        copied = copy.deepcopy(cut.storage.__getstate__())
        cut.storage.left = behind
        with pytest.raises(Died):
            cut.drive()
        cut.storage = Mortal()
        cut.storage.__setstate__(copied)
        cut.storage.left = math.inf
        cut.drive()
        assert cut.rows() == whole.rows(), f"from a copy {behind} writes behind write {write}"
