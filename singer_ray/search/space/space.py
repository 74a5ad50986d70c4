"""Search spaces: YAML files that say which settings vary, and how.

    method.rank:     {type: int, low: 4, high: 32, log: true}
    method.strength: {type: uniform, low: 0.0, high: 1.0}
    train.lr:        {type: loguniform, low: 1.0e-3, high: 8.0e-3}
    method.refiner:  {type: choice, values: [singer, none]}

Names are those of the configuration; `step` quantises int and uniform. A parameter with conditions is drawn only where
they hold:

    method.rank:     {type: int, low: 4, high: 32, when: {method.refiner: singer}}

Two names are reserved. `fixed` sets other settings for all trials, those of the search included; `enqueue` lists points
to try first, whole or in part (the sampler draws the rest):

    fixed:   {train.epochs: 3, search.sampler: grid}
    enqueue: [{method.rank: 16, train.lr: 4.0e-3}]
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import optuna
from pydantic import TypeAdapter, ValidationError

from singer_ray.config import Config, field_names, read_yaml_mapping
from singer_ray.config.names import did_you_mean
from singer_ray.errors import UserError, nearest
from singer_ray.resources import find_shipped, shipped_names
from singer_ray.search.space.enqueue import parse_points
from singer_ray.search.space.parameters import (
    ENQUEUE,
    FIXED,
    TYPES,
    AnyParameter,
    Categorical,
    Parameter,
    Value,
    either,
    number_in_text,
)
from singer_ray.storage.address import expanded_as

UNSEARCHABLE = (
    "seed",
    "search.",
    "export.",
    "data.",
    "evaluation.",
    "train.workers",
    "train.launcher",
    "train.epochs",
    "train.steps_per_epoch",
    "train.device",
    "train.threads",
    "train.storage",
    "train.trackers",
    "teacher.",
)
"""Settings that all trials of a search must share: they decide what is compared, or where it runs."""
UNFIXABLE = ("search.space",)
"""Settings that a space cannot set, because they name the space."""


class SearchSpace:
    """Dotted configuration names and their distributions, as a define-by-run space for Optuna.

    Calling it with an Optuna trial draws a value for each parameter whose conditions hold. `parameters` and
    `distributions` are keyed by name, each after those that its conditions name; `fixed` holds the settings that the
    space sets for all trials, `enqueue` the points that are tried first.
    """

    def __init__(
        self,
        parameters: Mapping[str, AnyParameter],
        fixed: Mapping[str, Any] | None = None,
        enqueue: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Raises UserError when conditions are circular or can never hold together."""
        self.parameters = _conditions_first(parameters)
        self.distributions = {name: parameter.distribution() for name, parameter in self.parameters.items()}
        self.fixed = dict(fixed or {})
        self.enqueue = [dict(point) for point in enqueue]
        self._parents: dict[str, dict[str, list[Value]]] = {}
        for name in self.parameters:
            self._parents[name] = self._allowed_parents(name)

    @property
    def conditional(self) -> bool:
        """Whether trials differ in which parameters they have."""
        return any(parameter.when for parameter in self.parameters.values())

    def __call__(self, trial: optuna.Trial) -> None:
        for name, parameter in self.parameters.items():
            if parameter.drawn_at(trial.params):
                trial._suggest(name, self.distributions[name])

    def apply(self, config: Config, given: Collection[str] = ()) -> Config:
        """The configuration with `fixed` set, except for settings in `given`: those were typed. Raises UserError."""
        return config.override({name: value for name, value in self.fixed.items() if name not in given})

    def branches(self) -> list[dict[str, Any]]:
        """A point for each value of each choice that conditions name: a search tries each at least once."""
        parents = dict.fromkeys(name for parameter in self.parameters.values() for name in parameter.when)
        return [{**self._needed(name), name: value} for name in parents for value in self.parameters[name].extremes()]

    def first_points(self) -> list[dict[str, Any]]:
        """What a search tries first: `enqueue`, then the branches that no earlier point covers."""
        points = [dict(point) for point in self.enqueue]
        for branch in self.branches():
            if not any(branch.items() <= point.items() for point in points):
                points.append(branch)
        return points

    def corners(self, config: Config) -> list[Config]:
        """The configuration with each parameter at each of its ends, one at a time. Raises UserError.

        `config` is the one that trials start from: with `fixed` applied.
        """
        return [
            config.override({**self._needed(name), name: value})
            for name, parameter in self.parameters.items()
            for value in parameter.extremes()
        ]

    def points_around(self, name: str, others: Collection[str]) -> Iterator[dict[str, Any]]:
        """Points at which `name` is drawn, one for each combination of values of the choices in `others`."""
        parents = self._parents[name]
        varied = {n: p.extremes() for n, p in self.parameters.items() if n in others and isinstance(p, Categorical)}
        varied |= {n: values for n, values in parents.items() if n in others}
        for values in itertools.product(*varied.values()):
            yield {**self._needed(name), **dict(zip(varied, values)), name: self.parameters[name].extremes()[0]}

    def size(self) -> int | None:
        """How many different points there are; None when there are infinitely many."""
        counts = {name: parameter.count() for name, parameter in self.parameters.items()}
        if None in counts.values():
            return None
        parents = [name for name in self.parameters if any(name in p.when for p in self.parameters.values())]
        return sum(
            math.prod(counts[n] or 0 for n, p in self.parameters.items() if n not in parents and p.drawn_at(point))
            for point in self._walk(parents, {})
        )

    def points(self) -> Iterator[dict[str, Any]]:
        """Every point of a space that has a `size`."""
        return self._walk(list(self.parameters), {})

    def holds(self, point: Mapping[str, Any]) -> bool:
        """Whether this space can draw `point`: all its parameters and no others, within their ranges."""
        drawn = {name for name, parameter in self.parameters.items() if parameter.drawn_at(point)}
        if set(point) != drawn:
            return False
        try:
            for name, value in point.items():
                self.parameters[name].take(value)
        except ValueError:
            return False
        return True

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `load_space` takes them."""
        reserved = {FIXED: {n: _plain(v) for n, v in self.fixed.items()}, ENQUEUE: [dict(p) for p in self.enqueue]}
        parameters = {n: p.model_dump(mode="json", exclude_defaults=True) for n, p in self.parameters.items()}
        return {**{name: value for name, value in reserved.items() if value}, **parameters}

    def _walk(self, names: Sequence[str], point: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if not names:
            yield point
        elif not self.parameters[names[0]].drawn_at(point):
            yield from self._walk(names[1:], point)
        else:
            for value in self.parameters[names[0]].grid():
                yield from self._walk(names[1:], {**point, names[0]: value})

    def _needed(self, name: str) -> dict[str, Any]:
        """Values at which a parameter is drawn."""
        return {other: values[0] for other, values in self._parents[name].items()}

    def _allowed_parents(self, name: str) -> dict[str, list[Value]]:
        """The values that each parameter on which this one depends may have for this one to be drawn."""
        allowed: dict[str, list[Value]] = {}
        for other, wanted in self.parameters[name].conditions.items():
            for parent, values in [*self._parents[other].items(), (other, wanted)]:
                both = [value for value in allowed.get(parent, values) if value in values]
                if not both:
                    raise UserError(
                        f"{name} is never drawn: its conditions on {', '.join(self.parameters[name].when)} need "
                        f"{parent} to be {either(allowed[parent])} and {either(values)} at once. Change its `when`."
                    )
                allowed[parent] = both
        return allowed


def load_space(source: str | Mapping[str, Any], config: Config, given: Collection[str] = ()) -> SearchSpace:
    """The space in a YAML file, under a shipped name, or in a mapping, checked against `config`.

    `given` are settings of `config` that `fixed` leaves alone. Raises UserError when the space is missing, empty or
    malformed, names an unknown setting or one that trials must share, or reaches values that the configuration refuses.
    """
    if isinstance(source, str):
        source = expanded_as(source, "--space")
        path = find_shipped("tune_spaces", source)
        if path is None:
            raise UserError(
                f"--space {source!r} is neither a file nor a shipped space. Allowed: "
                f"{', '.join(shipped_names('tune_spaces'))}, or the path of a .yaml file."
            )
        where = str(path) if not path.is_absolute() else f"{path.parent.name}/{path.name}"
        tree = read_yaml_mapping(path)
    else:
        tree, where = dict(source), "the search space"
    fixed, enqueue = tree.pop(FIXED, None), tree.pop(ENQUEUE, None)
    if not tree:
        raise UserError(
            f"{where} {'is empty' if fixed is None else 'has no parameter'}. Name at least one setting, for example "
            "method.rank: {type: int, low: 4, high: 32}."
        )
    try:
        parameters = {str(name): _parse(str(name), value) for name, value in tree.items()}
        fixed = _parse_fixed({} if fixed is None else fixed, parameters)
        _check_conditions(parameters, fixed)
        points = parse_points([] if enqueue is None else enqueue, parameters, fixed)
        space = SearchSpace(parameters, fixed, points)
        base = space.apply(config, given)
        space.corners(base)
        for point in points:
            base.override(point)
    except UserError as error:
        raise UserError(f"{where}: {str(error).replace(' (the configuration)', '')}") from error
    return space


def _parse(name: str, value: Any) -> AnyParameter:
    _check_name(name)
    if name.startswith(UNSEARCHABLE):
        hint = f", or under `{FIXED}`" if name not in UNFIXABLE else ""
        raise UserError(f"{name} must be the same in all trials of a search. Set it with --{name} instead{hint}.")
    adapter: TypeAdapter[AnyParameter] = TypeAdapter(Parameter)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] in ("union_tag_invalid", "union_tag_not_found", "model_attributes_type"):
            raise UserError(
                f"{name} is {value!r}. Allowed: {{type: {' | '.join(TYPES)}}} with low and high, or values."
            ) from error
        field = ".".join(str(part) for part in first["loc"][1:])
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{name}{'.' + field if field else ''}: {message}. Given: {value!r}.") from error


def _check_name(name: str) -> None:
    known = field_names()
    if name not in known:
        raise UserError(
            f"{name!r} is not a setting.{did_you_mean(name, [*known, FIXED, ENQUEUE])} "
            "`python -m singer_ray.tune --help-all` lists all."
        )


def _parse_fixed(given: Any, parameters: Mapping[str, AnyParameter]) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise UserError(f"{FIXED} is {given!r}. Allowed: settings and their values, for example {{train.epochs: 3}}.")
    fixed = {str(name): number_in_text(value) for name, value in given.items()}
    for name, value in fixed.items():
        _check_name(name)
        if name in parameters:
            raise UserError(f"{name} is both a parameter and fixed to {value!r}. Keep one of the two.")
        if name in UNFIXABLE:
            raise UserError(f"{FIXED} sets {name} to {value!r}, but a space is found through it. Use --space.")
    return fixed


def _check_conditions(parameters: Mapping[str, AnyParameter], fixed: Mapping[str, Any]) -> None:
    for name, parameter in parameters.items():
        for other, wanted in parameter.conditions.items():
            if other not in parameters:
                hint = f" It is {FIXED} to {fixed[other]!r}: leave the condition out." if other in fixed else ""
                raise UserError(
                    f"{name} is drawn when {other} is {either(wanted)}, but {other} is not a parameter of this space."
                    f"{hint or nearest(other, parameters)} Name one of: "
                    f"{', '.join(n for n in parameters if n != name)}."
                )
            chosen = parameters[other]
            if not isinstance(chosen, Categorical):
                raise UserError(f"{name}: `when` names {other}, a {chosen.type}. Allowed: a choice parameter.")
            if not wanted or any(value not in chosen.values for value in wanted):
                raise UserError(
                    f"{name} is drawn when {other} is {either(wanted)}, which it never is. "
                    f"Allowed: {', '.join(map(str, chosen.values))}."
                )


def _conditions_first(parameters: Mapping[str, AnyParameter]) -> dict[str, AnyParameter]:
    """The parameters, each after those that its conditions name. Raises UserError when there is no such order."""
    ordered: dict[str, AnyParameter] = {}
    waiting = dict(parameters)
    while waiting:
        ready = [name for name, parameter in waiting.items() if not set(parameter.when) - set(ordered)]
        if not ready:
            raise UserError(f"the conditions of {', '.join(waiting)} wait for one another. Remove one `when`.")
        ordered |= {name: waiting.pop(name) for name in ready}
    return ordered


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value
