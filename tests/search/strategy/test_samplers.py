"""Samplers: what each can take, that their state survives, and that a grid ends."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from singer_ray.config import Config, load_preset
from singer_ray.errors import UserError
from singer_ray.search.space.space import SearchSpace, load_space
from singer_ray.search.strategy.samplers import (
    SAMPLERS,
    check_sampler,
    grid_exhausted,
    make_sampler,
)
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.opening import create_study, load_study, storage_of
from singer_ray.search.study.schema import METRICS
from tests.search.studies import APART

ONE = Objectives(("val/miou",), ("max",), "val/miou", "max")
TWO = Objectives(("val/miou", "student/parameters"), ("max", "min"), "val/miou", "max")

NUMBERS = {
    "method.rank": {"type": "int", "low": 4, "high": 32},
    "method.strength": {"type": "uniform", "low": 0.5, "high": 1.0},
    "train.lr": {"type": "loguniform", "low": 1e-3, "high": 1e-2},
}
CONDITIONS = {
    "method.refiner": {"type": "choice", "values": ["singer", "clip", "none"]},
    "method.clip.ratio": {"type": "uniform", "low": 1.0, "high": 1.6, "step": 0.2, "when": {"method.refiner": "clip"}},
    "method.variant": {"type": "choice", "values": ["recommended", "paper"], "when": {"method.refiner": "singer"}},
    "method.rank": {"type": "int", "low": 4, "high": 8, "step": 2, "when": {"method.variant": ["recommended"]}},
}
"""1 (none) + 4 (clip) + 3 (recommended) + 1 (paper) points."""

HUGE = {name: {"type": "int", "low": 1, "high": 60} for name in ("method.rank", "student.depth", "train.batch_size")}


def setting(sampler: str = "tpe", **more: Any) -> Config:
    return load_preset("demo").override(
        {"search.sampler": sampler, "search.trials": 12, "search.startup_trials": 4, **more}
    )


def spaced(tree: dict[str, Any]) -> SearchSpace:
    return load_space(tree, load_preset("demo"))


def score(values: dict[str, Any]) -> float:
    """Some function of a point."""
    return sum(len(v) if isinstance(v, str) else abs(v - 1) for v in values.values()) % 7


def run(study: optuna.Study, space: SearchSpace, count: int) -> list[dict[str, Any]]:
    found = []
    for _ in range(count):
        trial = study.ask()
        space(trial)
        value = score(trial.params)
        trial.set_user_attr(METRICS, {"val/miou": value})
        study.tell(trial, [value] * len(study.directions))
        found.append(trial.params)
    return found


def new_study(objectives: Objectives = ONE, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
    study = create_study(optuna.storages.InMemoryStorage(), "it", objectives)
    return optuna.load_study(study_name="it", storage=study._storage, sampler=sampler)


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


@pytest.mark.parametrize(
    "sampler",
    [
        optuna.samplers.GPSampler(seed=0, n_startup_trials=4, warn_independent_sampling=False),
        optuna.samplers.CmaEsSampler(seed=0, n_startup_trials=4, warn_independent_sampling=False),
        optuna.samplers.NSGAIISampler(seed=0, population_size=4),
    ],
    ids=["gp", "cmaes", "nsga2"],
)
def test_the_refusal_of_conditions_is_right_about_optuna(
    sampler: optuna.samplers.BaseSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where conditions are refused, Optuna would draw what depends on them at random for ever."""
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


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name not in ("random", "grid")])
def test_samplers_learn(sampler: str) -> None:
    """After their random start, suggestions gather where the score is best: at low strength."""
    space = spaced({n: NUMBERS[n] for n in ("method.strength", "train.lr")})
    study, found = new_study(), []
    for number in range(80 if sampler in ("nsga2", "cmaes") else 25):  # by generations, hence slower
        study.sampler = make_sampler(setting(sampler), space, ONE, number=number)
        trial = study.ask()
        space(trial)
        study.tell(trial, -trial.params["method.strength"])
        found.append(trial.params["method.strength"])
    assert sum(found[-15:]) / 15 < 0.65  # 0.75 at random


# --- exact resume


def journal(folder: Path, name: str) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(folder / f"{name}.journal")))


def space_for(sampler: str) -> dict[str, Any]:
    return CONDITIONS if sampler == "grid" else NUMBERS


def run_by_number(study: optuna.Study, name: str, trials: int) -> list[Any]:
    """What a search suggests, whose sampler is made anew for each trial."""
    space, found = spaced(space_for(name)), []
    for _ in range(trials):
        study.sampler = make_sampler(setting(name), space, ONE, number=len(study.trials))
        found += run(study, space, 1)
    return found


RESUME = """
import sys
from pathlib import Path
import json, optuna
from singer_ray.search.strategy.samplers import SAMPLERS
from tests.search.strategy.test_samplers import journal, run_by_number
folder, found = Path(sys.argv[1]), {}
for name in sorted(SAMPLERS, key="gp".__eq__):  # the one that needs torch last
    study = optuna.load_study(study_name=name, storage=journal(folder, name))
    found[name] = run_by_number(study, name, 3 if name == "grid" else 6)
(folder / "found.json").write_text(json.dumps(found))
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
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_search_in_two_processes_asks_what_one_in_a_single_process_asks(name: str, resumed: dict[str, Any]) -> None:
    whole = run_by_number(new_study(), name, 9 if name == "grid" else 12)
    assert resumed[name] == whole[6:]


@pytest.mark.parametrize("name", sorted({*SAMPLERS} - {"grid"}))
def test_each_trial_has_random_numbers_of_its_own(name: str) -> None:
    found = run_by_number(new_study(), name, 6)
    assert all(one != other for n, one in enumerate(found) for other in found[:n])


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


def test_a_search_by_tpe_does_not_load_torch() -> None:
    program = """
import sys
from tests.search.strategy.test_samplers import NUMBERS, ONE, make_sampler, new_study, run, setting, spaced
for name in ("tpe", "cmaes"):
    run(new_study(sampler=make_sampler(setting(name), spaced(NUMBERS), ONE)), spaced(NUMBERS), 8)
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# --- what a stranger's study holds


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
    found = []
    for kind in (type(make_sampler(config, space, ONE)), optuna.samplers.CmaEsSampler):
        study = new_study()
        for number in range(30):
            study.sampler = kind(seed=number, n_startup_trials=4, warn_independent_sampling=False)  # type: ignore[call-arg]
            run(study, space, 1)
        found.append([trial.params for trial in study.trials])
        generations = [trial.system_attrs.get("cma:generation", 0) for trial in study.trials]
    assert max(generations) > 2
    for ours, optunas in zip(*found, strict=True):  # sums in another order: the last digit may differ
        assert ours == pytest.approx(optunas, rel=1e-9)


# --- grids


def asked(study: optuna.Study, space: SearchSpace, concurrent: int) -> list[str]:
    """Asks until the grid ends, with several trials under way that end in mixed order and states."""
    running: list[optuna.Trial] = []
    order = []
    while not grid_exhausted(study, space):
        trial = study.ask()
        space(trial)
        running.append(trial)
        order.append(json.dumps(trial.params, sort_keys=True))
        if len(running) == concurrent:
            done = running.pop(len(order) % concurrent)
            state = [TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED][len(order) % 3]
            study.tell(done, 1.0 if state == TrialState.COMPLETE else None, state=state)
    for trial in running:
        study.tell(trial, 1.0)
    return order


@pytest.mark.parametrize("concurrent", [1, 4])
@pytest.mark.parametrize("queue", [False, True])
def test_a_grid_asks_each_point_exactly_once_and_ends(concurrent: int, queue: bool) -> None:
    space = spaced({**CONDITIONS, "enqueue": [{"method.refiner": "clip", "method.clip.ratio": 1.4}]})
    study = new_study(sampler=make_sampler(setting("grid"), space, ONE))
    for point in space.first_points() if queue else []:
        study.enqueue_trial(point)
    order = asked(study, space, concurrent)
    assert sorted(order) == sorted(json.dumps(point, sort_keys=True) for point in space.points())
    assert space.size() == len(order) == 9
    assert not study.get_trials(states=[TrialState.RUNNING, TrialState.WAITING])
    if queue:
        assert json.loads(order[0]) == {"method.refiner": "clip", "method.clip.ratio": 1.4}
    with pytest.raises(RuntimeError, match="grid_exhausted"):
        space(study.ask())


def test_the_order_of_a_grid_is_that_of_its_seed() -> None:
    space = spaced(CONDITIONS)
    orders = [
        asked(new_study(sampler=make_sampler(setting("grid", seed=seed), space, ONE)), space, 1) for seed in (1, 1, 2)
    ]
    assert orders[0] == orders[1] != orders[2]


def test_a_space_without_end_is_never_exhausted() -> None:
    assert not grid_exhausted(new_study(), spaced(NUMBERS))
