"""What settings are made of: blocks of them, and the conditions under which one has an effect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from singer_ray.config import Config


class Block(BaseModel):
    """A frozen block of settings; the docstring below a field is its help."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


@dataclass(frozen=True)
class Condition:
    """When a setting has an effect."""

    holds: Callable[[Config], bool]
    settings: tuple[str, ...]
    """The settings that decide it."""
    wanted: str
    """The same in words, as advice: what it has an effect with."""


def only(setting: str, *values: object) -> Condition:
    """Where `setting` is one of `values`."""
    return Condition(lambda c: c.value(setting) in values, (setting,), f"{setting} {' or '.join(map(str, values))}")


def above_zero(setting: str) -> Condition:
    return Condition(lambda c: c.value(setting) > 0, (setting,), f"{setting} above 0")


def is_set(setting: str) -> Condition:
    return Condition(lambda c: c.value(setting) is not None, (setting,), setting)


def unset(setting: str) -> Condition:
    return Condition(lambda c: not c.value(setting), (setting,), f"no {setting}")


def in_s3(setting: str) -> Condition:
    return Condition(lambda c: str(c.value(setting)).startswith("s3://"), (setting,), f"{setting} in s3://")


def any_of(*conditions: Condition) -> Condition:
    return Condition(
        lambda c: any(each.holds(c) for each in conditions),
        tuple(k for each in conditions for k in each.settings),
        ", or ".join(each.wanted for each in conditions),
    )


def any_of_all(*alternatives: Sequence[Condition]) -> tuple[Condition, ...]:
    """Where all conditions of one of `alternatives` hold."""
    if len(alternatives) == 1:
        return tuple(alternatives[0])
    return (
        Condition(
            lambda c: any(all(each.holds(c) for each in every) for every in alternatives),
            tuple(k for every in alternatives for each in every for k in each.settings),
            ", or ".join(" and ".join(each.wanted for each in every) for every in alternatives),
        ),
    )
