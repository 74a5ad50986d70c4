"""Samplers and pruners are found by their files, and agree with what the configuration says of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from singer_ray.config import SearchConfig, load_preset
from singer_ray.config.effect import deciding, has_effect
from singer_ray.search.strategy.discovery import discover
from singer_ray.search.strategy.pruners import PRUNERS
from singer_ray.search.strategy.pruners.base import Pruner
from singer_ray.search.strategy.samplers import SAMPLERS
from singer_ray.search.strategy.samplers.base import Sampler, SamplerTask
from tests.search.strategy.sampling import ONE, setting, spaced

SPACE = spaced({name: {"type": "choice", "values": [1, 2]} for name in ("method.rank", "student.depth")})


@pytest.mark.parametrize(("name", "known", "kind"), [("sampler", SAMPLERS, Sampler), ("scheduler", PRUNERS, Pruner)])
def test_the_configuration_names_those_that_have_a_file(name: str, known: dict[str, Any], kind: type) -> None:
    assert tuple(known) == get_args(SearchConfig.model_fields[name].annotation)
    assert all(isinstance(each, kind) for each in known.values())


def test_a_new_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "plugged"
    folder.mkdir()
    for name, content in {"__init__": "", "base": "", "old": "IT = 1", "new": "IT = 2", "first": "IT = 3"}.items():
        (folder / f"{name}.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    assert list(discover("plugged", "IT", ["first", "missing"]).items()) == [("first", 3), ("new", 2), ("old", 1)]
    (folder / "empty.py").write_text("")
    with pytest.raises(AttributeError, match="IT"):
        discover("plugged", "IT", [])


class Watched:
    """Settings that note which of them are read."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self.read: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.read.add(f"search.{name}")
        return getattr(self.settings, name)


def in_effect(setting_of_choice: str, chosen: str) -> set[str]:
    """The settings that the configuration takes for used, of those that it uses with some samplers or pruners only."""
    config = load_preset("demo").override({"search.sampler": "random", "search.scheduler": "none"})
    names = [f"search.{name}" for name in SearchConfig.model_fields]
    apart = [name for name in names if setting_of_choice in deciding(name)]
    assert apart
    return {name for name in apart if has_effect(name, config.override({setting_of_choice: chosen}))}


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_configuration_knows_which_settings_a_sampler_uses(name: str) -> None:
    search: Any = Watched(setting(name).search)
    SAMPLERS[name].make(SamplerTask(search, SPACE, ONE, (), 0, 0))
    assert search.read - {"search.trials"} == in_effect("search.sampler", name)


@pytest.mark.parametrize("name", PRUNERS)
def test_the_configuration_knows_which_settings_a_pruner_uses(name: str) -> None:
    search: Any = Watched(setting().search)
    config: Any = SimpleNamespace(search=search, train=setting().train)
    PRUNERS[name].make(config)
    assert search.read == in_effect("search.scheduler", name) - {"search.stop_metric"}  # that one is the search's own
