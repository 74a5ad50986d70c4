"""What Ray Tune is told, and what it is kept from telling."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import cloudpickle
from ray.exceptions import ActorDiedError
from ray.tune.execution import class_cache
from ray.tune.search import Searcher

from singer_ray.nodes.ray_start import keep_keys_at_home
from singer_ray.search.driver.tune_adapters import Failure, Recoveries, StudySearcher
from singer_ray.search.study.running import Assignment
from singer_ray.search.workers.errors import DIED


def searcher(room: list[int]) -> StudySearcher:
    numbers = iter(range(5))

    def ask(trial: str) -> Assignment | None:
        number = next(numbers, None)
        return None if number is None else Assignment(number, f"{number:03d}", {}, None)

    ask_tell: Any = SimpleNamespace(ask=ask, end=lambda *given, **named: None)
    return StudySearcher(ask_tell, Failure(), lambda: room[-1])


def test_trials_at_a_time_follow_the_room() -> None:
    room = [2]
    asked = searcher(room)
    assert [bool(asked.suggest(t)) for t in "abc"] == [True, True, False]
    room.append(3)
    assert [bool(asked.suggest(t)) for t in "cd"] == [True, False]
    room.append(1)  # those that live go on; none is added while there are more
    for trial in "ab":
        asked.on_trial_complete(trial, {})
        assert asked.suggest("d") is None
    asked.on_trial_complete("c", error=True)
    assert asked.suggest("d")
    room.append(0)
    asked.on_trial_complete("d", {})
    assert asked.suggest("e")  # Tune would block for minutes where nothing runs and nothing comes
    asked.on_trial_complete("e", {})
    finished: Any = Searcher.FINISHED
    assert asked.suggest("f") == finished


def test_a_lost_machine_is_one_line_a_trial(tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "error.pkl"
    trial: Any = SimpleNamespace(pickled_error_file=str(path), config={"label": "003"})
    path.write_bytes(cloudpickle.dumps(ActorDiedError()))
    Recoveries(said.append).on_trial_recover(1, [trial], trial)
    path.write_bytes(cloudpickle.dumps(ValueError("a \x1b[31mred\nline")))
    Recoveries(said.append).on_trial_recover(1, [trial], trial)
    assert said == [
        f"trial 003: {DIED}; it goes on from its last epoch",
        "trial 003: ValueError: a \\x1b[31mred; it goes on from its last epoch",
    ]


def test_no_key_of_aws_is_handed_to_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"):
        monkeypatch.setenv(name, "planted")
    monkeypatch.setattr(class_cache, "ENV_VARS_TO_PROPAGATE", {*class_cache.ENV_VARS_TO_PROPAGATE, "AWS_SECRET"})
    handed: list[dict[str, Any]] = []

    def remote(*, runtime_env: dict[str, Any]) -> Any:
        handed.append(runtime_env)
        return lambda kind: kind

    monkeypatch.setattr(class_cache.ray, "remote", remote)
    keep_keys_at_home()
    class_cache._ActorClassCache().get(SimpleNamespace)
    assert "PL_DISABLE_FORK" in handed[0]["env_vars"]
    assert "planted" not in str(handed)
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == "planted"
