"""What a warm start brings from an earlier search, and which searches it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from singer_ray.errors import UserError
from singer_ray.search.space.space import SearchSpace
from singer_ray.search.state.warm_start import Imported, earlier_study, import_trials
from singer_ray.search.strategy.samplers import make_sampler
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.opening import create_study
from singer_ray.search.study.schema import IMPORTED, METRICS, own_rows
from tests.search.fake_session import Search
from tests.search.strategy.sampling import CONDITIONS, NUMBERS, ONE, TWO, asked, new_study, run, setting, spaced


def finished(tree: dict[str, Any], objectives: Objectives = ONE, count: int = 8, seed: int = 4) -> optuna.Study:
    """A search that is over: COMPLETE rows, and one each that failed, was stopped, never ended."""
    space = spaced(tree)
    study = new_study(objectives, optuna.samplers.RandomSampler(seed=seed))
    run(study, space, count)
    for state in (TrialState.FAIL, TrialState.PRUNED, None):
        trial = study.ask()
        space(trial)
        if state:
            study.tell(trial, state=state)
    return study


def test_a_warm_start_takes_the_finished_trials_of_an_earlier_search() -> None:
    earlier, study, space = finished(CONDITIONS), new_study(), spaced(CONDITIONS)
    assert import_trials(study, earlier, space, "s3://b/old") == Imported(rows=8, skipped=0)
    assert [(t.params, t.values) for t in study.trials] == [(t.params, t.values) for t in earlier.trials[:8]]
    assert {t.user_attrs[IMPORTED] for t in study.trials} == {"s3://b/old"}
    assert [t.user_attrs[METRICS] for t in study.trials] == [{"val/miou": t.value} for t in study.trials]
    assert own_rows(study) == []
    third = new_study()
    assert import_trials(third, study, space, "s3://b/mid").rows == 8
    assert third.trials[0].user_attrs[IMPORTED] == "s3://b/old"


def test_values_outside_todays_ranges_are_skipped() -> None:
    earlier = finished(NUMBERS, count=20)
    narrow = spaced({**NUMBERS, "method.rank": {"type": "int", "low": 4, "high": 16, "step": 2}})
    inside = [t for t in earlier.trials[:20] if t.params["method.rank"] in range(4, 17, 2)]
    study = new_study()
    assert import_trials(study, earlier, narrow, "old") == Imported(len(inside), 20 - len(inside))
    assert 0 < len(inside) < 20
    assert [t.params for t in study.trials] == [t.params for t in inside]


def test_other_conditions_and_values_that_are_not_finite_are_skipped() -> None:
    earlier = finished(CONDITIONS, count=20)
    always = {**CONDITIONS, "method.rank": {"type": "int", "low": 4, "high": 8, "step": 2}}
    kept = sum("method.rank" in t.params for t in earlier.trials[:20])
    assert import_trials(new_study(), earlier, spaced(always), "old") == Imported(kept, 20 - kept)
    trial = earlier.ask()
    spaced(CONDITIONS)(trial)
    earlier.tell(trial, float("inf"))
    assert import_trials(new_study(), earlier, spaced(CONDITIONS), "old") == Imported(20, 1)


def without(tree: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in tree.items() if name not in names}


@pytest.mark.parametrize(
    ("before", "objectives", "said"),
    [
        (without(NUMBERS, "train.lr"), ONE, "old is a study from another space: it has no train.lr."),
        ({**NUMBERS, "method.gate": {"type": "uniform", "low": 0, "high": 1}}, ONE, "it also has method.gate"),
        (
            {**NUMBERS, "method.strength": {"type": "choice", "values": [0.5, 1.0]}},
            ONE,
            "method.strength was a choice and is a number",
        ),
        (NUMBERS, TWO, "old optimised val/miou (maximize), student/parameters (minimize); this search val/miou"),
        (NUMBERS, Objectives(("val/miou",), ("min",), "val/miou", "min"), "old optimised val/miou (minimize)"),
    ],
)
def test_an_earlier_search_for_something_else_is_refused(
    before: dict[str, Any], objectives: Objectives, said: str
) -> None:
    study = new_study()
    with pytest.raises(UserError) as caught:
        import_trials(study, finished(before, objectives), spaced(NUMBERS), "old")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not study.trials


def test_an_earlier_search_without_a_finished_trial_is_refused() -> None:
    with pytest.raises(UserError, match="no trial of it finished"):
        import_trials(new_study(), finished(NUMBERS, count=0), spaced(NUMBERS), "old")


def searched_before(space: SearchSpace) -> optuna.Study:
    """Forty random points; low strengths did well."""
    study = new_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(40):
        trial = study.ask()
        space(trial)
        study.tell(trial, -trial.params["method.strength"])
    return study


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes"])
def test_samplers_start_from_imported_trials(sampler: str) -> None:
    """The very first suggestions gather at the low strengths that did well before; a cold start is random."""
    space, study = spaced(NUMBERS), new_study()
    import_trials(study, searched_before(space), space, "old")
    study.sampler = make_sampler(setting(sampler), space, ONE, study.trials)
    suggested = [point["method.strength"] for point in run(study, space, 6)]
    assert sum(suggested) / 6 < 0.65  # 0.75 at random


@pytest.mark.parametrize("count", [1, 9, 10])
def test_cmaes_takes_few_imported_trials_and_parameters_of_one_value(count: int) -> None:
    """Ten are enough to start at the best of them; with fewer the library would stop with an assertion."""
    space, study = spaced({**NUMBERS, "method.refiner": {"type": "choice", "values": ["singer"]}}), new_study()
    earlier = new_study(sampler=optuna.samplers.RandomSampler(seed=2))
    run(earlier, space, count)
    import_trials(study, earlier, space, "old")
    study.sampler = make_sampler(setting("cmaes", **{"search.startup_trials": 1}), space, ONE, study.trials)
    centre = 0.75 if count < 10 else float(earlier.best_trial.params["method.strength"])
    suggested = [point["method.strength"] for point in run(study, space, 8)]
    assert abs(sum(suggested) / 8 - centre) < 0.1
    assert {t.params["method.refiner"] for t in study.trials} == {"singer"}


def test_nsga2_crosses_the_best_of_the_imported_trials() -> None:
    space, study = spaced(NUMBERS), new_study(TWO)
    earlier = searched_before(space)
    best = sorted(earlier.trials, key=lambda t: -float(t.values[0]))[:4]
    both = create_study(optuna.storages.InMemoryStorage(), "both", TWO)
    for row in earlier.trials:
        both.add_trial(
            optuna.trial.create_trial(
                values=[float(row.values[0]), -float(row.values[0])],
                params=row.params,
                distributions=row.distributions,
            )
        )
    import_trials(study, both, space, "old")
    study.sampler = make_sampler(setting("nsga2", **{"search.trials": 20}), space, TWO)
    known = {value for row in best for value in row.params.values()}
    children = run(study, space, 4)
    assert all(known & set(child.values()) for child in children)


def test_a_grid_does_not_repeat_imported_points() -> None:
    space, study = spaced(CONDITIONS), new_study()
    earlier = new_study(sampler=make_sampler(setting("grid"), space, ONE))
    before = run(earlier, space, 4)
    import_trials(study, earlier, space, "old")
    study.sampler = make_sampler(setting("grid", seed=5), space, ONE)
    order = [json.loads(text) for text in asked(study, space, 2)]
    assert len(order) == 5
    assert not [point for point in order if point in before]


# --- whether values can be compared


def searched(out: Path, settings: dict[str, Any]) -> Path:
    """The folder of a finished search."""
    search = Search(out, settings, space=NUMBERS)
    search.run(lambda assignment, epoch: {"val/miou": 0.5})
    (out / "config.yaml").write_text(search.config.to_yaml())
    return out


def brought(source: Path, changes: dict[str, Any]) -> tuple[optuna.Study | None, str]:
    """What today's search with these changes takes over, and says."""
    said: list[str] = []
    config = Search(source.parent / "today", {"search.warm_start": str(source), **changes}, space=NUMBERS).config
    return earlier_study(config, spaced(NUMBERS), ONE, said.append), "".join(said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train.epochs": 5}, "train.epochs was 2 and is 5. Set them alike, or leave search.warm_start out."),
        ({"teacher.name": "demo-clean"}, "teacher.name was 'demo' and is 'demo-clean'"),
        ({"data.scenes.seed": 3, "student.depth": 2}, "data.scenes.seed was 0 and is 3; student.depth was 3 and is 2"),
        ({"evaluation.fit_images": 8}, "evaluation.fit_images was 1024 and is 8"),
    ],
)
def test_values_that_cannot_be_compared_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    source = searched(tmp_path / "old", {"search.trials": 1})
    with pytest.raises(UserError) as caught:
        brought(source, changes)
    assert str(caught.value).startswith(f"search.warm_start {source} has values that cannot be compared with those of")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_may_differ_is_said(tmp_path: Path) -> None:
    source = searched(tmp_path / "old", {"search.trials": 3, "method.gate": 1.0, "train.lr": 0.5})
    study, said = brought(source, {"evaluation.every": 2, "search.sampler": "tpe", "seed": 4, "data.loader_workers": 1})
    assert said == f"warm start: 3 finished trials of {source}; there method.gate was 1.0"  # the space has train.lr
    assert study is not None
    assert len(study.trials) == 3
