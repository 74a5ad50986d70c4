"""tpe: stopped trials beside one or several objectives, and what it loads."""

from __future__ import annotations

import subprocess
import sys

import optuna
import pytest
from optuna.trial import TrialState

from singer_ray.search.strategy.samplers import make_sampler
from tests.search.strategy.sampling import NUMBERS, TWO, new_study, setting, spaced
from tests.search.studies import APART


@pytest.mark.parametrize("stopped", ["PRUNED", "FAIL"])
def test_several_objectives_go_with_stopped_trials(stopped: str) -> None:
    space = spaced(NUMBERS)
    study = optuna.create_study(directions=["maximize", "minimize"])
    for number in range(12):
        study.sampler = make_sampler(setting("tpe"), space, TWO, number=number)
        trial = study.ask()
        space(trial)
        study._storage.set_trial_intermediate_value(trial._trial_id, 1, 0.5)
        values = None if number % 2 else [0.5, float(number)]
        study.tell(trial, values, state=None if values else optuna.trial.TrialState[stopped])
    assert len(study.trials) == 12


def test_tpe_does_not_take_the_stop_metric_of_stopped_trials_for_the_objective() -> None:
    """Those stopped for their high RMSE have the best mIoU in Optuna's eyes. Only the first one finished."""
    space, study = spaced(NUMBERS), new_study()
    for _ in range(3):
        study.enqueue_trial({"method.strength": 0.5})
    for number in range(24):
        trial = study.ask()
        space(trial)
        if number == 0:
            study.tell(trial, 0.5)
        else:
            study._storage.set_trial_intermediate_value(trial._trial_id, 2, 5 * trial.params["method.strength"])
            study._storage.set_trial_state_values(trial._trial_id, TrialState.PRUNED)
    suggested = []
    for number in range(24, 34):
        study.sampler = make_sampler(setting("tpe"), space, APART, number=number)
        trial = study.ask()
        space(trial)
        study.tell(trial, state=TrialState.FAIL)
        suggested.append(trial.params["method.strength"])
    assert sum(suggested) / 10 < 0.7  # 0.75 at random, more where the RMSE leads


@pytest.mark.slow
def test_a_search_by_tpe_does_not_load_torch() -> None:
    program = """
import sys
from singer_ray.search.strategy.samplers import make_sampler
from tests.search.strategy.sampling import NUMBERS, ONE, new_study, run, setting, spaced
for name in ("tpe", "cmaes"):
    run(new_study(sampler=make_sampler(setting(name), spaced(NUMBERS), ONE)), spaced(NUMBERS), 8)
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
