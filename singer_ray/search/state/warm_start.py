"""A warm start: the finished trials of an earlier search, for the sampler to start from."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, create_trial

from singer_ray.config import Config, field_names, read_yaml_mapping
from singer_ray.config.tree import config_of_file
from singer_ray.errors import UserError
from singer_ray.layout import CONFIG
from singer_ray.search.space.space import SearchSpace
from singer_ray.search.state.store import bring_study
from singer_ray.search.strategy.samplers.nsga2 import FIRST_GENERATION
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.opening import create_study, load_study, storage_of
from singer_ray.search.study.schema import COMPLETE, IMPORTED, METRICS

ALIKE = ("data.", "evaluation.", "teacher.", "student.", "train.epochs", "train.steps_per_epoch")
"""Settings that decide what a trial's values mean: they must be those of the earlier search."""
FREE = (
    "data.loader_workers",
    "evaluation.every",
    "evaluation.batch_size",
    "evaluation.l2_grid",
    "evaluation.protocol",
    "evaluation.official.",
)
"""Those among them that do not affect a search's values."""
TOLD = (
    "method.",
    "train.batch_size",
    "train.lr",
    "train.weight_decay",
    "train.warmup",
    "train.clip_grad",
    "train.drop_path",
    "train.precision",
)
"""Settings that lead to other students at the same point of the space: reported, not refused."""


def earlier_study(
    config: Config, space: SearchSpace, objectives: Objectives, log: Callable[[str], None]
) -> optuna.Study | None:
    """The study of `search.warm_start`, checked by a trial import; None when no warm start is asked for.

    Raises UserError when there is no such study, or its values do not mean what those of this search mean.
    """
    source = config.search.warm_start
    if source is None:
        return None
    rows, scratch = optuna.storages.InMemoryStorage(), optuna.storages.InMemoryStorage()
    with tempfile.TemporaryDirectory() as place:
        record = bring_study(source, config.export.endpoint, Path(place))
        before = config_of_file(read_yaml_mapping(Path(place) / CONFIG), f"search.warm_start {source}, {CONFIG}")
        there = storage_of(record["study"], Path(place), "read")
        load_study(there, record["name"])
        optuna.copy_study(from_study_name=record["name"], from_storage=there, to_storage=rows)
    earlier = load_study(rows, record["name"])
    taken = import_trials(create_study(scratch, "scratch", objectives), earlier, space, source)
    others = check_alike(before, config, space, source)
    skipped = f", {taken.skipped} outside today's space skipped" if taken.skipped else ""
    apart = f"; there {', '.join(others)}" if others else ""
    log(f"warm start: {taken.rows} finished trials of {source}{skipped}{apart}")
    return earlier


def check_alike(before: Config, today: Config, space: SearchSpace, source: str) -> list[str]:
    """Other settings that differ, in words. Raises UserError when the two searches' values mean different things."""
    changed = [
        name
        for name in field_names()
        if name not in space.parameters and before.value(name) != today.value(name) and not name.startswith(FREE)
    ]
    differences = [
        f"{name} was {before.value(name)!r} and is {today.value(name)!r}" for name in changed if name.startswith(ALIKE)
    ]
    if differences:
        raise UserError(
            f"search.warm_start {source} has values that cannot be compared with those of this search: "
            f"{'; '.join(differences)}. Set them alike, or leave search.warm_start out."
        )
    return [f"{name} was {before.value(name)!r}" for name in changed if name.startswith(TOLD)]


@dataclass(frozen=True)
class Imported:
    """What a warm start brought."""

    rows: int
    """Finished trials that were taken over."""
    skipped: int
    """Finished trials that the present space could not draw."""


def import_trials(study: optuna.Study, earlier: optuna.Study, space: SearchSpace, source: str) -> Imported:
    """Adds the COMPLETE trials of an earlier study to `study`, marked as IMPORTED from `source`.

    Rows that the earlier study had itself imported keep the address they came from. Raises UserError when the two have
    different objectives or spaces, or when the earlier one has no finished trial.
    """
    _check_objectives(study, earlier, source)
    rows = [row for row in earlier.get_trials(deepcopy=False) if row.state.name == COMPLETE]
    if not rows:
        raise UserError(f"search.warm_start {source}: no trial of it finished. Leave search.warm_start out.")
    _check_space(rows, space, source)
    taken = [row for row in rows if space.holds(row.params) and all(map(math.isfinite, row.values))]
    for row in taken:
        names = [name for name in space.parameters if name in row.params]
        known = {IMPORTED: row.user_attrs.get(IMPORTED, source)}
        known |= {METRICS: row.user_attrs[METRICS]} if METRICS in row.user_attrs else {}
        imported = create_trial(
            values=row.values,
            user_attrs=known,
            system_attrs=FIRST_GENERATION,
            params={name: space.parameters[name].take(row.params[name]) for name in names},
            distributions={name: space.distributions[name] for name in names},
        )
        study.add_trial(imported)
    return Imported(len(taken), len(rows) - len(taken))


def _check_objectives(study: optuna.Study, earlier: optuna.Study, source: str) -> None:
    def of(one: optuna.Study) -> list[str]:
        names = one.metric_names or ["unnamed"] * len(one.directions)
        return [f"{name} ({direction.name.lower()})" for name, direction in zip(names, one.directions)]

    if of(study) != of(earlier):
        raise UserError(
            f"search.warm_start {source} optimised {', '.join(of(earlier))}; this search {', '.join(of(study))}. "
            "Set search.objectives alike, or leave search.warm_start out."
        )


def _check_space(rows: Sequence[FrozenTrial], space: SearchSpace, source: str) -> None:
    before = {name: _kind(distribution) for row in rows for name, distribution in row.distributions.items()}
    today = {name: _kind(distribution) for name, distribution in space.distributions.items()}
    always = {name for name, parameter in space.parameters.items() if not parameter.when}
    differences = [
        f"{name} was {before[name]} and is {today[name]}"
        for name in sorted(set(before) & set(today))
        if before[name] != today[name]
    ]
    if always - set(before):
        differences.append(f"it has no {', '.join(sorted(always - set(before)))}")
    if set(before) - set(today):
        differences.append(f"it also has {', '.join(sorted(set(before) - set(today)))}")
    if differences:
        raise UserError(
            f"search.warm_start {source} is a study from another space: {'; '.join(differences)}. "
            "Give a search over the same parameters, or leave search.warm_start out."
        )


def _kind(distribution: BaseDistribution) -> str:
    kinds = {CategoricalDistribution: "a choice", IntDistribution: "a whole number", FloatDistribution: "a number"}
    return kinds[type(distribution)]
