"""The kinds of parameter that a search space has: a choice, a whole number, a number."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

FIXED, ENQUEUE = "fixed", "enqueue"
"""Names in a space that are not those of parameters."""
_POWER_OF_TEN = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


def number_in_text(value: Any) -> Any:
    """YAML takes 1e-3 (without a point) for text; here it is a number, in lists as well."""
    if isinstance(value, list):
        return [number_in_text(each) for each in value]
    return float(value) if isinstance(value, str) and _POWER_OF_TEN.fullmatch(value) else value


Value = bool | int | float | str | None
Listed = Annotated[Value, BeforeValidator(number_in_text)]


def either(values: Sequence[Value]) -> str:
    """The values in words."""
    return " or ".join(map(repr, values)) or "nothing"


class _Parameter(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    when: dict[str, Listed | list[Listed]] = {}
    """Name of another parameter -> the value, or the values, at which this one is drawn."""

    @property
    def conditions(self) -> dict[str, list[Value]]:
        """`when`, with the values always listed."""
        return {name: wanted if isinstance(wanted, list) else [wanted] for name, wanted in self.when.items()}

    def drawn_at(self, values: Mapping[str, Any]) -> bool:
        """Whether the conditions hold at these values of the other parameters."""
        return all(name in values and values[name] in wanted for name, wanted in self.conditions.items())


class Categorical(_Parameter):
    """One of some values."""

    type: Literal["choice"]
    values: list[Listed] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        twice = [value for n, value in enumerate(self.values) if value in self.values[:n]]
        if twice:
            raise ValueError(f"values names {twice[0]!r} twice")
        return self

    def distribution(self) -> BaseDistribution:
        return CategoricalDistribution(self.values)

    def extremes(self) -> list[Any]:
        return list(self.values)

    def count(self) -> int | None:
        return len(self.values)

    def grid(self) -> list[Any]:
        return list(self.values)

    def place(self, value: Any) -> int:
        return self.values.index(value)

    def take(self, value: Any) -> Any:
        if value not in self.values:
            raise ValueError(f"Allowed: {', '.join(map(str, self.values))}")
        return self.values[self.place(value)]


class _Range(_Parameter):
    @model_validator(mode="after")
    def _ascending(self) -> Self:
        low, high = getattr(self, "low"), getattr(self, "high")  # noqa: B009
        if low > high:
            raise ValueError(f"low {low} is above high {high}")
        if low <= 0 and (getattr(self, "log", False) or isinstance(self, LogUniform)):
            raise ValueError(f"low {low} must be above 0 on a logarithmic scale")
        step = getattr(self, "step", None)
        if getattr(self, "log", False) and step != 1:
            raise ValueError(f"step {step} with log: true. On a logarithmic scale leave step out, or give a choice")
        beyond = Decimal(0) if step is None else (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step))
        if beyond:
            ends = Decimal(str(high)) - beyond, Decimal(str(high)) - beyond + Decimal(str(step))
            raise ValueError(
                f"step {step} leads from low {low} past high {high}. Let high be {' or '.join(f'{e:g}' for e in ends)}"
            )
        return self

    def extremes(self) -> list[Any]:
        return list(dict.fromkeys([getattr(self, "low"), getattr(self, "high")]))  # noqa: B009


class Integer(_Range):
    """A whole number from low to high, both included."""

    type: Literal["int"]
    low: int
    high: int
    step: int = Field(1, ge=1)
    log: bool = False

    def distribution(self) -> BaseDistribution:
        return IntDistribution(self.low, self.high, log=self.log, step=self.step)

    def count(self) -> int | None:
        return (self.high - self.low) // self.step + 1

    def grid(self) -> list[Any]:
        return list(range(self.low, self.high + 1, self.step))

    def place(self, value: Any) -> int:
        return (int(value) - self.low) // self.step

    def take(self, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value % 1:
            raise ValueError(f"Allowed: a whole number from {self.low} to {self.high}")
        if not self.low <= value <= self.high:
            raise ValueError(f"Allowed: {self.low} to {self.high}")
        if (value - self.low) % self.step:
            below = int(value - (value - self.low) % self.step)
            raise ValueError(f"That is off its step {self.step}. Nearest: {below} or {below + self.step}")
        return int(value)


class _Number(_Range):
    low: float
    high: float

    def take(self, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            raise ValueError(f"Allowed: a number from {self.low:g} to {self.high:g}")
        return float(value)


class Uniform(_Number):
    """A number from low to high, every one as likely; `step` quantises."""

    type: Literal["uniform"]
    step: float | None = Field(None, gt=0)

    def distribution(self) -> BaseDistribution:
        return FloatDistribution(self.low, self.high, step=self.step)

    def count(self) -> int | None:
        if self.low == self.high:
            return 1
        return None if self.step is None else self.place(self.high) + 1

    def grid(self) -> list[Any]:
        return [self._at(n) for n in range(self.count() or 0)]

    def place(self, value: Any) -> int:
        return 0 if self.step is None else round((value - self.low) / self.step)

    def take(self, value: Any) -> Any:
        number = super().take(value)
        if self.step is None or self.low == self.high:
            return number
        n = self.place(number)
        if abs(self._at(n) - number) > 1e-8 * self.step:
            below = n if self._at(n) < number else n - 1
            nearest = f"{self._at(below):g} or {self._at(below + 1):g}"
            raise ValueError(f"That is off its step {self.step:g}. Nearest: {nearest}")
        return number

    def _at(self, n: int) -> float:
        return self.low if self.step is None else float(Decimal(str(self.low)) + n * Decimal(str(self.step)))


class LogUniform(_Number):
    """A number from low to high, every order of magnitude as likely."""

    type: Literal["loguniform"]

    @model_validator(mode="before")
    @classmethod
    def _without_step(cls, given: Any) -> Any:
        if isinstance(given, dict) and "step" in given:
            raise ValueError(
                "a loguniform has no step. Use a choice with the values listed, int with log: true, or uniform"
            )
        return given

    def distribution(self) -> BaseDistribution:
        return FloatDistribution(self.low, self.high, log=True)

    def count(self) -> int | None:
        return 1 if self.low == self.high else None

    def grid(self) -> list[Any]:
        return [self.low] if self.low == self.high else []

    def place(self, value: Any) -> int:
        return 0


AnyParameter = Categorical | Integer | Uniform | LogUniform
Parameter = Annotated[AnyParameter, Field(discriminator="type")]
TYPES = ("choice", "int", "uniform", "loguniform")
