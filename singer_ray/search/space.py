"""Search spaces: YAML files that say which knobs vary, and how.

    method.rank:     {type: int, low: 4, high: 32, log: true}
    method.strength: {type: uniform, low: 0.0, high: 1.0}
    train.lr:        {type: loguniform, low: 1.0e-3, high: 8.0e-3}
    method.refiner:  {type: choice, values: [singer, none]}

Names are those of the configuration; `step` quantises int and uniform.
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


class _Parameter(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Choice(_Parameter):
    """One of some values."""

    type: Literal["choice"]
    values: list[bool | int | float | str | None] = Field(min_length=1)

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

    Calling it with an Optuna trial draws one value of each.
    """

    def __init__(self, parameters: Mapping[str, Choice | Integer | Uniform | LogUniform]) -> None:
        self.parameters = dict(parameters)
        self.distributions = {name: parameter.distribution() for name, parameter in self.parameters.items()}

    def __call__(self, trial: optuna.Trial) -> None:
        for name, distribution in self.distributions.items():
            trial._suggest(name, distribution)

    def corners(self, config: Config) -> list[Config]:
        """The configuration with each parameter at each of its ends, one at a time. Raises UserError."""
        return [
            config.override({name: value})
            for name, parameter in self.parameters.items()
            for value in parameter.extremes()
        ]


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
    space = SearchSpace({name: _parse(str(name), value, where) for name, value in tree.items()})
    try:
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
