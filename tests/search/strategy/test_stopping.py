"""When a search ends: what it may use, the target, and the plateau."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from singer_ray.config import load_preset
from singer_ray.errors import UserError
from singer_ray.search.strategy.cost import Spending
from singer_ray.search.strategy.stopping import GO_ON, NO_MORE_TRIALS, STOP, Budget, hypervolume, reference_point
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.opening import create_study
from singer_ray.search.study.schema import IMPORTED

MIOU = Objectives(("val/miou",), ("max",), "val/miou", "max")
RMSE = Objectives(("val/depth_rmse",), ("min",), "val/depth_rmse", "min")
BOTH = Objectives(("val/miou", "student/parameters"), ("max", "min"), "val/miou", "max")
BEGIN = datetime(2026, 1, 1)
NOTHING = Spending(money=0.0)


def study_of(
    values: Sequence[Sequence[float] | None], objectives: Objectives = MIOU, *, reverse: bool = False
) -> optuna.Study:
    """COMPLETE rows with these values in order of completion (None: RUNNING); `reverse` numbers them backwards."""
    study = create_study(optuna.storages.InMemoryStorage(), "s", objectives)
    rows = []
    for place, value in enumerate(values):
        state = TrialState.RUNNING if value is None else TrialState.COMPLETE
        end = None if value is None else BEGIN + timedelta(minutes=place)
        row = FrozenTrial(0, state, None, BEGIN, end, {}, {}, {}, {}, {}, 0, values=list(value) if value else None)
        rows.append(row)
    study.add_trials(rows[::-1] if reverse else rows)
    return study


def scores(*values: float) -> list[tuple[float]]:
    return [(value,) for value in values]


@pytest.mark.parametrize(
    ("budget", "spending", "reason"),
    [
        (Budget(9, time=60), Spending(60.0), "stopped: 60 s are used up, search.time_budget is 60 s"),
        (Budget(9, gpu_hours=2), Spending(9.0, 2.5), "stopped: 2.5 GPU-hours are used up, search.gpu_hours is 2"),
        (Budget(9, money=20), Spending(9.0, 0.0, 20.004), "stopped: $20.00 are spent, search.money is $20"),
    ],
)
def test_what_is_used_up_stops_everything(budget: Budget, spending: Spending, reason: str) -> None:
    decision = budget.check(study_of([]), MIOU, spending)
    assert (decision.action, decision.reason) == (STOP, reason)
    assert budget.check(study_of([]), MIOU, NOTHING).action == GO_ON


@pytest.mark.parametrize(
    ("objectives", "value", "target"), [(MIOU, 0.6, 0.55), (RMSE, 0.4, 0.45), (BOTH, (0.6, 9e6), 0.6)]
)
def test_a_trial_that_reaches_the_target_ends_the_search(
    objectives: Objectives, value: float | tuple[float, float], target: float
) -> None:
    best = value if isinstance(value, tuple) else (value,)
    worse = tuple(0.9 * v if mode == "max" else 1.2 * v for v, mode in zip(best, objectives.modes))
    budget = Budget(9, target=target)
    assert budget.check(study_of([worse], objectives), objectives, NOTHING).action == GO_ON
    decision = budget.check(study_of([worse, best], objectives), objectives, NOTHING)
    assert decision.action == STOP
    assert decision.reason == (f"stopped: trial 001 has {objectives.first} {best[0]:g}, search.target is {target:g}")


def test_trials_that_were_started_count_but_imported_ones_do_not() -> None:
    study = study_of([(0.5,), None, None])
    assert Budget(4).check(study, MIOU, NOTHING).action == GO_ON
    decision = Budget(3).check(study, MIOU, NOTHING)
    assert (decision.action, decision.reason) == (NO_MORE_TRIALS, "all 3 trials were started")
    imported = optuna.trial.create_trial(value=0.9, user_attrs={IMPORTED: "runs/earlier"})
    study.add_trial(imported)
    assert Budget(4, target=0.8).check(study, MIOU, NOTHING).action == GO_ON


def test_a_plateau_ends_with_the_trials_that_run() -> None:
    budget = Budget(99, plateau_trials=3, plateau_gain=0.005)
    rising = scores(0.1, 0.2, 0.3, 0.31, 0.32)
    assert budget.check(study_of(rising), MIOU, NOTHING).action == GO_ON
    flat = [*scores(0.1, 0.3, 0.2, 0.302, 0.1), None]
    decision = budget.check(study_of(flat), MIOU, NOTHING)
    assert decision.action == NO_MORE_TRIALS
    assert decision.reason == (
        "stopped: the best value gained 0.002 over the last 3 finished trials, not more than search.plateau_gain 0.005"
    )
    assert budget.check(study_of(scores(0.3, 0.3, 0.3)), MIOU, NOTHING).action == GO_ON  # too few to tell


def test_the_order_of_a_plateau_is_that_of_completion_not_of_numbers() -> None:
    budget = Budget(99, plateau_trials=2)
    values = scores(0.5, 0.1, 0.2)
    for reverse in (False, True):
        assert budget.check(study_of(values, reverse=reverse), MIOU, NOTHING).action == NO_MORE_TRIALS
        assert budget.check(study_of(values[::-1], reverse=reverse), MIOU, NOTHING).action == GO_ON


def test_without_a_gain_only_a_standstill_is_a_plateau() -> None:
    budget = Budget(99, plateau_trials=2)
    assert budget.check(study_of(scores(0.4, 0.1, 0.400001)), MIOU, NOTHING).action == GO_ON
    decision = budget.check(study_of(scores(0.4, 0.4, 0.3)), MIOU, NOTHING)
    assert "gained nothing over the last 2 finished trials" in str(decision.reason)
    assert budget.check(study_of(scores(0.3, 0.5, 0.4), RMSE), RMSE, NOTHING).action == NO_MORE_TRIALS


FRONT = [(0.3, 2e6), (0.4, 4e6), (0.5, 8e6), (0.2, 1e6), (0.35, 5e6)]


@pytest.mark.parametrize("unit", [1.0, 1e-6])
def test_the_plateau_of_a_front_is_that_of_its_hypervolume_in_any_unit(unit: float) -> None:
    budget = Budget(99, plateau_trials=2, plateau_gain=0.01)

    def check(*later: tuple[float, float]) -> str:
        rows = [(miou, count * unit) for miou, count in (*FRONT, *later)]
        return budget.check(study_of(rows, BOTH), BOTH, NOTHING).action

    assert check((0.34, 6e6), (0.1, 9e6)) == NO_MORE_TRIALS  # both dominated
    assert check((0.34, 6e6), (0.4001, 4e6)) == NO_MORE_TRIALS  # a hair better
    assert check((0.34, 6e6), (0.42, 3e6)) == GO_ON
    assert check((0.6, 8e6), (0.1, 9e6)) == GO_ON  # past the end of the front
    # A far worse trial must not move the point that volumes are measured from.
    assert check((0.34, 6e6), (0.0, 9e9)) == NO_MORE_TRIALS


def volume_by_cells(costs: np.ndarray, reference: np.ndarray) -> float:
    """The same by counting the cells of the grid that the points span."""
    edges = [np.unique([*costs[:, k], reference[k]]) for k in range(costs.shape[1])]
    total = 0.0
    for corner in itertools.product(*(range(len(e) - 1) for e in edges)):
        low = np.array([e[i] for e, i in zip(edges, corner)])
        if (costs <= low).all(1).any() and (low < reference).all():
            total += float(np.prod([e[i + 1] - e[i] for e, i in zip(edges, corner)]))
    return total


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_the_hypervolume_is_exact(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    for _ in range(5):
        costs = rng.integers(0, 6, (9, objectives)).astype(float)  # whole numbers: ties and doubles
        reference = np.full(objectives, 5.0)  # some points lie on it or behind it
        inside = costs[(costs < reference).all(1)]
        assert hypervolume(costs, reference) == pytest.approx(volume_by_cells(inside, reference))
    assert hypervolume(np.empty((0, objectives)), reference) == 0.0


@pytest.mark.parametrize(
    ("points", "reference", "volume"),
    [
        ([[0.25], [0.5]], [1.0], 0.75),
        ([[0, 2], [1, 1], [2, 0]], [3, 3], 6.0),  # a staircase of 3 + 2 + 1 squares
        ([[0, 1, 1], [1, 0, 1], [1, 1, 0]], [2, 2, 2], 4.0),  # each 2, the cube of 1 in all of them
        ([[0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]], [2, 2, 2, 2], 5.0),
    ],
)
def test_hypervolumes_that_are_known(points: list[list[float]], reference: list[float], volume: float) -> None:
    """Optuna's function is private: it may change."""
    costs = np.array(points, float)
    assert hypervolume(costs, np.array(reference, float)) == volume
    behind = np.vstack([costs, costs + 0.5, costs[:1] + 100.0])  # dominated, or behind the reference point
    assert hypervolume(behind, np.array(reference, float)) == volume


def test_the_reference_point_is_behind_all_points_even_where_an_objective_never_varied() -> None:
    costs = np.array([[-0.5, 3e6, 0.0], [-0.3, 3e6, 0.0]])
    assert reference_point(costs) == pytest.approx([-0.28, 3.3e6, 0.1])


@pytest.mark.slow
@pytest.mark.parametrize("objectives", [MIOU, BOTH], ids=["one", "two"])
def test_a_check_at_500_trials_costs_milliseconds(objectives: Objectives) -> None:
    rng = np.random.default_rng(0)
    width = rng.uniform(0, 1, 500)
    values = np.stack([np.sqrt(width) + rng.normal(0, 0.02, 500), 1e7 * width], 1)[:, : len(objectives.names)]
    study = study_of(values.tolist(), objectives)
    budget = Budget(999, time=1e9, target=9.0, plateau_trials=50, plateau_gain=0.0)
    budget.check(study, objectives, NOTHING)
    times = []
    for _ in range(5):
        begin = time.process_time()
        budget.check(study, objectives, NOTHING)
        times.append(time.process_time() - begin)
    assert min(times) < 0.005


def test_the_configuration_becomes_a_budget_and_a_time_left() -> None:
    config = load_preset("demo").override(
        {
            "search.trials": 7,
            "search.time_budget": 7200.0,
            "search.gpu_hours": 3.0,
            "search.money": 10.0,
            "search.target": 0.7,
            "search.plateau_trials": 4,
            "search.plateau_gain": 0.1,
        }
    )
    budget = Budget.of(config.search)
    assert budget == Budget(7, 7200.0, 3.0, 10.0, 0.7, 4, 0.1)
    spent = Spending(3600.0, 1.0, 4.0)
    assert budget.seconds_left(spent, gpus=0.0, dollars_per_hour=None) == 3600.0
    assert budget.seconds_left(spent, gpus=4.0, dollars_per_hour=None) == 1800.0
    assert budget.seconds_left(spent, gpus=4.0, dollars_per_hour=24.0) == 900.0
    assert Budget(7).seconds_left(spent, gpus=4.0, dollars_per_hour=24.0) == np.inf
    with pytest.raises(UserError, match=r"search.gpu_hours 3 has no effect"):
        budget.require_gpus(0.0)
    budget.require_gpus(1.0)
    Budget(7).require_gpus(0.0)
