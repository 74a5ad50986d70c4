"""Search spaces: YAML files that say which knobs vary, and how.

    method.rank:     {type: int, low: 4, high: 32, log: true}
    method.strength: {type: uniform, low: 0.0, high: 1.0}
    train.lr:        {type: loguniform, low: 1.0e-3, high: 8.0e-3}
    method.refiner:  {type: choice, values: [singer, none]}

Names are those of the configuration; `step` quantises int and uniform. A parameter with conditions is drawn only where
they hold:

    method.rank:     {type: int, low: 4, high: 32, when: {method.refiner: singer}}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from singer_ray.config import Config, field_names, read_yaml_mapping
from singer_ray.errors import UserError, nearest
from singer_ray.resources import find_shipped, shipped_names

UNSEARCHABLE = ("seed", "search.", "export.", "data.", "evaluation.", "train.workers", "train.launcher", "train.epochs",
                "train.steps_per_epoch", "train.device", "train.threads", "teacher.")  # fmt: skip
"""Knobs that all trials of a search must share: they decide what is compared, or where it runs."""


Value = bool | int | float | str | None


class _Parameter(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    when: dict[str, Value | list[Value]] = {}
    """Name of another parameter -> the value, or the values, at which this one is drawn."""

    def drawn_at(self, values: Mapping[str, Any]) -> bool:
        """Whether the conditions hold at these values of the other parameters."""
        return all(name in values and values[name] in _listed(wanted) for name, wanted in self.when.items())


class Choice(_Parameter):
    """One of some values."""

    type: Literal["choice"]
    values: list[Value] = Field(min_length=1)

    def distribution(self) -> BaseDistribution:
        return CategoricalDistribution(self.values)

    def extremes(self) -> list[Any]:
        return list(self.values)


class _Range(_Parameter):
    @model_validator(mode="after")
    def _ascending(self) -> Self:
        low, high = getattr(self, "low"), getattr(self, "high")  # noqa: B009
        if low > high:
            raise ValueError(f"low {low} is above high {high}")
        if low <= 0 and (getattr(self, "log", False) or isinstance(self, LogUniform)):
            raise ValueError(f"low {low} must be above 0 on a logarithmic scale")
        return self

    def extremes(self) -> list[Any]:
        return [getattr(self, "low"), getattr(self, "high")]  # noqa: B009


class Integer(_Range):
    """A whole number from low to high, both included."""

    type: Literal["int"]
    low: int
    high: int
    step: int = Field(1, ge=1)
    log: bool = False

    def distribution(self) -> BaseDistribution:
        return IntDistribution(self.low, self.high, log=self.log, step=self.step)


class Uniform(_Range):
    """A number from low to high, every one as likely; `step` quantises."""

    type: Literal["uniform"]
    low: float
    high: float
    step: float | None = Field(None, gt=0)

    def distribution(self) -> BaseDistribution:
        return FloatDistribution(self.low, self.high, step=self.step)


class LogUniform(_Range):
    """A number from low to high, every order of magnitude as likely."""

    type: Literal["loguniform"]
    low: float
    high: float

    def distribution(self) -> BaseDistribution:
        return FloatDistribution(self.low, self.high, log=True)


Parameter = Annotated[Choice | Integer | Uniform | LogUniform, Field(discriminator="type")]
_TYPES = ("choice", "int", "uniform", "loguniform")


class SearchSpace:
    """Dotted configuration names and their distributions, as a define-by-run space for Optuna.

    Calling it with an Optuna trial draws one value of each parameter whose conditions hold.
    """

    def __init__(self, parameters: Mapping[str, Choice | Integer | Uniform | LogUniform]) -> None:
        self.parameters = _conditions_first(parameters)
        self.distributions = {name: parameter.distribution() for name, parameter in self.parameters.items()}

    @property
    def conditional(self) -> bool:
        """Whether trials differ in which parameters they have."""
        return any(parameter.when for parameter in self.parameters.values())

    def __call__(self, trial: optuna.Trial) -> None:
        for name, parameter in self.parameters.items():
            if parameter.drawn_at(trial.params):
                trial._suggest(name, self.distributions[name])

    def branches(self) -> list[dict[str, Any]]:
        """One point for each value of the choices that conditions name: a search tries each of them at least once."""
        parents = dict.fromkeys(name for parameter in self.parameters.values() for name in parameter.when)
        return [{**self._needed(name), name: value} for name in parents for value in self.parameters[name].extremes()]

    def corners(self, config: Config) -> list[Config]:
        """The configuration with each parameter at each of its ends, one at a time. Raises UserError."""
        return [
            config.override({**self._needed(name), name: value})
            for name, parameter in self.parameters.items()
            for value in parameter.extremes()
        ]

    def _needed(self, name: str) -> dict[str, Any]:
        """Values at which a parameter is drawn."""
        needed: dict[str, Any] = {}
        for other, wanted in self.parameters[name].when.items():
            needed |= {**self._needed(other), other: _listed(wanted)[0]}
        return needed


def _conditions_first(
    parameters: Mapping[str, Choice | Integer | Uniform | LogUniform],
) -> dict[str, Choice | Integer | Uniform | LogUniform]:
    """The parameters, each behind those that its conditions name. Raises UserError when there is no such order."""
    ordered: dict[str, Choice | Integer | Uniform | LogUniform] = {}
    waiting = dict(parameters)
    while waiting:
        ready = [name for name, parameter in waiting.items() if not set(parameter.when) - set(ordered)]
        if not ready:
            raise UserError(f"the conditions of {', '.join(waiting)} wait for one another. Remove one `when`.")
        ordered |= {name: waiting.pop(name) for name in ready}
    return ordered


def _check_conditions(parameters: Mapping[str, Choice | Integer | Uniform | LogUniform], where: str) -> None:
    for name, parameter in parameters.items():
        for other, wanted in parameter.when.items():
            if other not in parameters:
                raise UserError(
                    f"{where}: {name} is drawn when {other} is {wanted!r}, but {other} is no parameter of this space."
                    f"{nearest(other, parameters)} Name one of: {', '.join(n for n in parameters if n != name)}."
                )
            chosen = parameters[other]
            if not isinstance(chosen, Choice):
                raise UserError(f"{where}: {name}: `when` names {other}, a {chosen.type}. Allowed: a choice parameter.")
            missing = [value for value in _listed(wanted) if value not in chosen.values]
            if missing or not _listed(wanted):
                raise UserError(
                    f"{where}: {name} is drawn when {other} is {wanted!r}, which it never is. "
                    f"Allowed: {', '.join(map(str, chosen.values))}."
                )


def _listed(wanted: Value | list[Value]) -> list[Value]:
    return wanted if isinstance(wanted, list) else [wanted]


def load_space(source: str | Mapping[str, Any], config: Config) -> SearchSpace:
    """The space in a YAML file, of a shipped name, or in a mapping, checked against `config`.

    Raises UserError when it is missing, empty or broken, names no knob or one that trials must share, or reaches values
    that the configuration refuses.
    """
    if isinstance(source, str):
        path = find_shipped("tune_spaces", source)
        if path is None:
            raise UserError(
                f"--space {source!r} is neither a file nor a shipped space. Allowed: "
                f"{', '.join(shipped_names('tune_spaces'))}, or the path of a .yaml file."
            )
        tree, where = read_yaml_mapping(path), _shown(path)
    else:
        tree, where = dict(source), "the search space"
    if not tree:
        raise UserError(
            f"{where} is empty. Name at least one knob, for example method.rank: {{type: int, low: 4, high: 32}}."
        )
    parameters = {str(name): _parse(str(name), value, where) for name, value in tree.items()}
    _check_conditions(parameters, where)
    try:
        space = SearchSpace(parameters)
        space.corners(config)
    except UserError as error:
        raise UserError(f"{where}: {str(error).replace(' (the configuration)', '')}") from error
    return space


def _parse(name: str, value: Any, where: str) -> Any:
    known = field_names()
    if name not in known:
        raise UserError(
            f"{where}: {name!r} names no knob.{nearest(name, known)} `python -m singer_ray.tune --help` lists all."
        )
    if name.startswith(UNSEARCHABLE):
        raise UserError(f"{where}: {name} must be the same in all trials of a search. Set it with --{name} instead.")
    adapter: TypeAdapter[Any] = TypeAdapter(Parameter)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] in ("union_tag_invalid", "union_tag_not_found", "model_attributes_type"):
            raise UserError(
                f"{where}: {name} is {value!r}. Allowed: {{type: {' | '.join(_TYPES)}}} with low and high, or values."
            ) from error
        field = ".".join(str(part) for part in first["loc"][1:])
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{where}: {name}{'.' + field if field else ''}: {message}. Given: {value!r}.") from error


def _shown(path: Path) -> str:
    return str(path) if not path.is_absolute() else f"{path.parent.name}/{path.name}"
