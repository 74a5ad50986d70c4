"""Starts a search, or goes on with one from wherever it was cut off."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from singer_ray.config import field_names, load_preset
from singer_ray.config.given import settle
from singer_ray.console.terminal import Terminal
from singer_ray.layout import CONFIG, RECORD, SPACE
from singer_ray.search.driver.searched import Searched
from singer_ray.search.driver.setup import SearchSetup
from singer_ray.search.space.dead import space_remarks
from singer_ray.search.space.space import load_space
from singer_ray.search.state.description import description
from singer_ray.search.state.locate import bring_search, checkpoint_storage
from singer_ray.search.state.resume_rules import check_changes, require_inputs
from singer_ray.search.strategy.samplers import check_sampler
from singer_ray.search.study.opening import load_study, require_own, storage_of
from singer_ray.storage.address import absolute, own_name

if TYPE_CHECKING:
    from singer_ray.config import Config


def run_search(
    config: Config,
    out: Path,
    *,
    space: str | Mapping[str, Any] | None = None,
    given: Sequence[str] = (),
    inputs: Any = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> Searched:
    """Searches by `config.search` and fills OUT.

    `given` names the settings that were set by hand, which win over those that the space fixes. `overwrite` deletes
    what an earlier search left in OUT and its copy, once everything has proved buildable and no process drives it.
    Raises UserError for what the user can mend, before the first trial wherever that is possible.
    """
    searched = load_space(space if space is not None else config.search.space, config, given)
    config = settle(searched.apply(config, given), {*given, *searched.fixed}, distils=inputs is None)
    check_sampler(config, searched, config.search.objectives)
    said = console or Console()
    for line in space_remarks(searched, config, given):
        said.print(line, highlight=False, markup=False)
    if config.search.study is not None:
        storage_of(config.search.study, out)  # whether it can be reached
    config, out = _meant_from_anywhere(config), _named(out)
    return SearchSetup(config, searched, out, inputs, console or Terminal()).begin(overwrite=overwrite)


def resume_search(
    address: str,
    *,
    out: Path | None = None,
    endpoint: str | None = None,
    changes: Mapping[str, Any] | None = None,
    inputs: Any = None,
    console: Console | None = None,
) -> Searched:
    """Goes on with the search at `address` (its folder, or STORAGE/NAME), whatever ended it.

    Finished trials are kept; trials that ran go on from their checkpoints under their numbers. `changes` may set what
    `CHANGEABLE` names. Raises UserError when there is no search, another process drives it, or a change would make
    earlier trials incomparable.
    """
    folder = bring_search(address, endpoint, out)
    config = load_preset(str(folder / CONFIG))
    check_changes(changes or {})
    require_inputs(address, config, inputs)
    config = config.override({n: absolute(v) if n == "export.to" and v else v for n, v in (changes or {}).items()})
    space = load_space(str(folder / SPACE), config, field_names())  # what it fixes is in the configuration by now
    name = description((folder / RECORD).read_bytes(), str(folder / RECORD))["name"]
    require_own(load_study(storage_of(config.search.study, folder, "read"), name), folder)
    storage = checkpoint_storage(address, folder, config)
    if storage is not None:
        storage, _, name = storage.rpartition("/")
        config = config.override({"train.storage": storage})
    return SearchSetup(config, space, folder, inputs, console or Terminal(), name=name).resume()


def _meant_from_anywhere(config: Config) -> Config:
    """With the places that the search writes to as they are from any folder: a resume may be typed in another one."""
    given = {name: config.value(name) for name in ("train.storage", "search.study", "export.to")}
    return config.override({name: absolute(place) for name, place in given.items() if place is not None})


def _named(out: Path) -> Path:
    """OUT by a path that ends in a name: the search has its own, and its folder below --storage."""
    return out if own_name(out) == out.name else Path(os.path.abspath(out))
