"""What a report says of a search's limits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from singer_ray.config import Config
from singer_ray.reporting.reading.findings import CAUTION, GOOD, NOTE, Finding, findings
from singer_ray.reporting.reading.importance import importances
from singer_ray.reporting.reading.record import SearchRecord, TrialRecord
from singer_ray.reporting.reading.search_reader import read_search
from tests.reporting.searches import REFINERS, fake_search


@pytest.fixture(scope="module")
def search(finished: Path) -> SearchRecord:
    return read_search(finished)


def with_best(search: SearchRecord, **parameters: float) -> SearchRecord:
    """The search with other parameters of its best trial."""
    names = {name.replace(".", "_"): name for name in search.distributions}
    changed = {names[key]: value for key, value in parameters.items()}
    best = search.finished[0]
    return with_trials(search, [replace(best, parameters={**best.parameters, **changed}), *search.trials[1:]])


def with_trials(search: SearchRecord, trials: list[TrialRecord]) -> SearchRecord:
    return replace(search, trials=trials)


def said(search: SearchRecord, part: str) -> Finding | None:
    return next((f for f in findings(search, Config()) if part in f.title), None)


def middle(search: SearchRecord) -> SearchRecord:
    return with_best(
        search,
        method_rank=11,
        method_strength=0.75,
        method_loss_outlier=0.1,
        method_outlier_quantile=0.94,
        train_lr=3e-3,
    )


def test_a_best_value_at_the_edge_is_named_with_a_wider_range(search: SearchRecord) -> None:
    assert said(middle(search), "edge of its range") is None
    at_edge = said(with_best(middle(search), train_lr=7.9e-3), "train.lr is at the edge")
    assert at_edge is not None
    assert at_edge.kind == CAUTION
    assert "0.008" in at_edge.text
    assert "for example to 0.023" in at_edge.text  # half the (logarithmic) range further
    below = said(with_best(middle(search), method_rank=4), "method.rank is at the edge")
    assert below is not None
    assert "down to 4" in below.text
    assert "for example to 1," in below.text


def test_no_range_is_proposed_that_the_setting_refuses(search: SearchRecord) -> None:
    limited = said(with_best(middle(search), method_outlier_quantile=0.98), "method.outlier_quantile is at the edge")
    assert limited is not None
    assert limited.kind == NOTE
    assert "cannot go" in limited.text


def test_winners_of_one_seed_are_doubted(tmp_path: Path) -> None:
    once = read_search(fake_search(tmp_path / "search"))
    found = said(once, "One seed for each trial")
    assert found is not None
    assert "--search.repeats" in found.text


def test_repeats_tell_whether_the_gain_is_real(search: SearchRecord) -> None:
    sure = said(search, "The gain is larger")
    assert sure is not None
    assert sure.kind == GOOD
    noisy = [replace(t, spread=0.05) if t.spread else t for t in search.trials]
    unsure = said(with_trials(search, noisy), "within the seeds' spread")
    assert unsure is not None
    assert unsure.kind == CAUTION
    assert said(with_trials(search, noisy), "cannot be told apart")


def test_stopped_and_failed_trials_are_counted(search: SearchRecord) -> None:
    stopped, failed = search.count("PRUNED"), search.count("FAIL")
    assert stopped
    assert failed
    assert said(search, f"{stopped / 40:.0%} of the trials were stopped early")
    assert said(search, f"{failed} trial")


def test_refiners_with_few_finished_trials_are_named(tmp_path: Path) -> None:
    search = read_search(fake_search(tmp_path / "search", trials=60, space=REFINERS))
    found = said(search, "unequal ground")
    assert found is not None
    assert "none" in found.text
    assert "singer" not in found.text.partition(":")[0]


def test_importance_finds_the_parameter_that_decides(tmp_path: Path) -> None:
    """The learning rate moves the value by .1 over its range, the outlier quantile by nothing."""
    states = ["COMPLETE"] * 120
    search = read_search(fake_search(tmp_path / "search", trials=120, states=states))
    found = importances(search, 0)
    assert sum(found.values()) == pytest.approx(1)
    assert max(found, key=lambda name: found[name]) in ("train.lr", "method.strength")
    assert found["train.lr"] > 2 * found["method.outlier_quantile"]


def test_importance_takes_conditional_parameters_and_refuses_too_few_trials(tmp_path: Path) -> None:
    search = read_search(fake_search(tmp_path / "search", trials=60, space=REFINERS, states=["COMPLETE"] * 60))
    assert set(importances(search, 0)) == set(REFINERS)
    assert importances(with_trials(search, search.finished[:9]), 0) == {}
