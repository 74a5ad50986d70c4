"""cmaes: it runs nothing that a study holds, and suggests what Optuna's own would."""

from __future__ import annotations

import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

import optuna
import pytest

from singer_ray.search.strategy.samplers import make_sampler
from singer_ray.search.study.opening import create_study, load_study, storage_of
from tests.search.strategy.sampling import NUMBERS, ONE, new_study, run, setting, spaced


class _Planted:
    """Unpickled it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def plant(study: optuna.Study, mark: Path) -> None:
    """Notes in the study, for Optuna's own sampler, an optimiser that runs code where it is loaded."""
    trial = study.ask({"train.lr": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)})
    content = pickle.dumps(_Planted(mark)).hex()
    study._storage.set_trial_system_attr(trial._trial_id, "cma:optimizer:0", content)
    study._storage.set_trial_system_attr(trial._trial_id, "cma:generation", 1)
    study.tell(trial, 0.5)


RATE = {"train.lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2}}


@pytest.mark.parametrize("place", ["journal", "database"])
def test_cmaes_does_not_run_what_a_study_holds(place: str, tmp_path: Path) -> None:
    mark, address = tmp_path / "mark", None if place == "journal" else f"sqlite:///{tmp_path}/s.db"
    space, config = spaced(RATE), setting("cmaes", **{"search.startup_trials": 1})
    plant(create_study(storage_of(address, tmp_path), "s", ONE), mark)
    study = load_study(storage_of(address, tmp_path, "write"), "s")
    for number in range(1, 4):
        study.sampler = make_sampler(config, space, ONE, number=number)
        run(study, space, 1)
    assert not mark.exists()
    assert "cma:optimizer:0" not in study.trials[0].system_attrs, "what the search does not write is not seen"
    theirs = optuna.load_study(study_name="s", storage=storage_of(address, tmp_path))
    theirs.sampler = optuna.samplers.CmaEsSampler(n_startup_trials=1, warn_independent_sampling=False)
    with contextlib.suppress(AttributeError):  # of os.system's answer, which is no optimiser
        run(theirs, space, 1)
    assert mark.exists(), "the test plants nothing that could run"


def test_cmaes_suggests_what_optunas_own_would() -> None:
    """Its state is told anew from the rows; one that keeps its pickles draws the very same."""
    space, config = spaced(NUMBERS), setting("cmaes")
    suggested = []
    for kind in (type(make_sampler(config, space, ONE)), optuna.samplers.CmaEsSampler):
        study = new_study()
        for number in range(30):
            study.sampler = kind(seed=number, n_startup_trials=4, warn_independent_sampling=False)  # type: ignore[call-arg]
            run(study, space, 1)
        suggested.append([trial.params for trial in study.trials])
        generations = [trial.system_attrs.get("cma:generation", 0) for trial in study.trials]
    assert max(generations) > 2
    for ours, optunas in zip(*suggested, strict=True):  # sums in another order: the last digit may differ
        assert ours == pytest.approx(optunas, rel=1e-9)
