"""Samplers: what each can take, that it learns, and that its state survives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from singer_ray.errors import UserError
from singer_ray.search.space.space import SearchSpace
from singer_ray.search.strategy.samplers import SAMPLERS, check_sampler, make_sampler
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.opening import create_study
from tests.search.strategy.sampling import CONDITIONS, HUGE, NUMBERS, ONE, TWO, new_study, run, setting, spaced


@pytest.mark.parametrize(
    ("sampler", "space", "objectives", "said"),
    [
        ("cmaes", CONDITIONS, ONE, "does not learn parameters with conditions, such as method.clip.ratio. Allowed"),
        ("gp", CONDITIONS, ONE, "Allowed for this search: tpe, random, grid."),
        ("nsga2", CONDITIONS, TWO, "Allowed for this search: tpe, random, grid."),
        (
            "cmaes",
            {**NUMBERS, "method.radial": {"type": "choice", "values": [True, False]}},
            ONE,
            "cmaes does not learn choices, such as method.radial. Allowed for this search: tpe, gp, nsga2, random.",
        ),
        ("cmaes", NUMBERS, TWO, "takes one objective, not 2 (val/miou, student/parameters)"),
        ("nsga2", {"method.rank": NUMBERS["method.rank"]}, TWO, "needs two parameters or more"),
        ("grid", NUMBERS, ONE, "method.strength is continuous: give it a step, or make it a choice"),
        ("grid", HUGE, ONE, "would try 216000 points; 100000 at most"),
    ],
)
def test_a_sampler_that_would_not_learn_the_space_is_refused(
    sampler: str, space: dict[str, Any], objectives: Objectives, said: str
) -> None:
    with pytest.raises(UserError) as caught:
        check_sampler(setting(sampler), spaced(space), objectives.names)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, sampler in SAMPLERS.items() if not sampler.takes_conditions])
def test_the_refusal_of_conditions_is_right_about_optuna(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where conditions are refused, Optuna would draw what depends on them at random for ever."""
    sampler = make_sampler(setting(name), spaced(NUMBERS), ONE)
    drawn: Counter[str] = Counter()
    original = sampler.sample_independent

    def counted(study: Any, trial: Any, name: str, distribution: Any) -> Any:
        drawn[name] += 1
        return original(study, trial, name, distribution)

    monkeypatch.setattr(sampler, "sample_independent", counted)
    points = run(new_study(sampler=sampler), spaced(CONDITIONS), 20)
    assert drawn["method.clip.ratio"] == sum("method.clip.ratio" in point for point in points) > 2


def test_the_shipped_settings_of_each_sampler() -> None:
    made: Any = make_sampler(setting("tpe"), spaced(CONDITIONS), ONE)
    assert (made._multivariate, made._group, made._constant_liar, made._n_startup_trials) == (True, True, True, 4)
    assert not make_sampler(setting("tpe"), spaced(NUMBERS), ONE)._group  # type: ignore[attr-defined]
    assert make_sampler(setting("nsga2", **{"search.trials": 60}), spaced(NUMBERS), TWO).population_size == 12  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [name for name, sampler in SAMPLERS.items() if sampler.learns])
def test_samplers_learn(sampler: str) -> None:
    """After their random start, suggestions gather where the score is best: at low strength."""
    space = spaced({n: NUMBERS[n] for n in ("method.strength", "train.lr")})
    study, suggested = new_study(), []
    for number in range(80 if sampler in ("nsga2", "cmaes") else 25):  # by generations, hence slower
        study.sampler = make_sampler(setting(sampler), space, ONE, number=number)
        trial = study.ask()
        space(trial)
        study.tell(trial, -trial.params["method.strength"])
        suggested.append(trial.params["method.strength"])
    assert sum(suggested[-15:]) / 15 < 0.65  # 0.75 at random


# --- exact resume


def journal(folder: Path, name: str) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(folder / f"{name}.journal")))


def space_for(sampler: str) -> SearchSpace:
    """Numbers, unless the sampler needs a finite space."""
    numbers = spaced(NUMBERS)
    return spaced(CONDITIONS) if SAMPLERS[sampler].refusal(numbers, ONE.names) else numbers


def trials_of(sampler: str) -> int:
    """Of a whole search."""
    return min(space_for(sampler).size() or 12, 12)


def run_by_number(study: optuna.Study, name: str, trials: int) -> list[Any]:
    """What a search suggests, whose sampler is made anew for each trial."""
    space, suggested = space_for(name), []
    for _ in range(trials):
        study.sampler = make_sampler(setting(name), space, ONE, number=len(study.trials))
        suggested += run(study, space, 1)
    return suggested


RESUME = """
import sys
from pathlib import Path
import json, optuna
from singer_ray.search.space.space import SearchSpace
from singer_ray.search.strategy.samplers import SAMPLERS
from tests.search.strategy.test_samplers import journal, run_by_number, trials_of
folder, suggested = Path(sys.argv[1]), {}
for name in sorted(SAMPLERS, key="gp".__eq__):  # the one that needs torch last
    study = optuna.load_study(study_name=name, storage=journal(folder, name))
    suggested[name] = run_by_number(study, name, trials_of(name) - 6)
(folder / "suggested.json").write_text(json.dumps(suggested))
"""


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each sampler suggests in a fresh process after six trials here, from the study alone."""
    folder = tmp_path_factory.mktemp("states")
    for name in SAMPLERS:
        create_study(journal(folder, name), name, ONE)
        run_by_number(optuna.load_study(study_name=name, storage=journal(folder, name)), name, 6)
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", RESUME, str(folder)], check=True, env=one_thread)
    suggested: dict[str, Any] = json.loads((folder / "suggested.json").read_text())
    return suggested


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_search_in_two_processes_asks_what_one_in_a_single_process_asks(name: str, resumed: dict[str, Any]) -> None:
    whole = run_by_number(new_study(), name, trials_of(name))
    assert resumed[name] == whole[6:]


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_two_trials_are_suggested_the_same(name: str) -> None:
    """Each has random numbers of its own."""
    suggested = run_by_number(new_study(), name, 6)
    assert all(one != other for n, one in enumerate(suggested) for other in suggested[:n])
