"""The points that a space lists to be tried first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from singer_ray.errors import UserError, nearest
from singer_ray.search.space.parameters import ENQUEUE, FIXED, AnyParameter, either, number_in_text


def parse_points(given: Any, parameters: Mapping[str, AnyParameter], fixed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The points of `enqueue`, as a space file has them. Raises UserError for one that the space could not draw."""
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise UserError(f"{ENQUEUE} is {given!r}. Allowed: a list of points, for example [{{method.rank: 16}}].")
    points: list[dict[str, Any]] = []
    for number, raw in enumerate(given, start=1):
        where = f"{ENQUEUE}, point {number}"
        if not isinstance(raw, Mapping) or not raw:
            raise UserError(f"{where} is {raw!r}. Allowed: parameters and their values, {{method.rank: 16}}.")
        point = {str(name): _parse_value(str(name), value, parameters, fixed, where) for name, value in raw.items()}
        for name in point:
            _check_drawn(name, point, parameters, where)
        if point in points:
            raise UserError(f"{where} is that of point {points.index(point) + 1}. Name each point once.")
        points.append(point)
    return points


def _parse_value(
    name: str, value: Any, parameters: Mapping[str, AnyParameter], fixed: Mapping[str, Any], where: str
) -> Any:
    if name in fixed:
        raise UserError(f"{where} names {name}, which is {FIXED} to {fixed[name]!r}. Leave it out of the point.")
    if name not in parameters:
        raise UserError(
            f"{where} names {name!r}, which is not a parameter of this space.{nearest(name, parameters)} "
            f"Allowed: {', '.join(parameters)}."
        )
    try:
        return parameters[name].take(number_in_text(value))
    except ValueError as error:
        raise UserError(f"{where}: {name} is {value!r}. {error}.") from error


def _check_drawn(name: str, point: Mapping[str, Any], parameters: Mapping[str, AnyParameter], where: str) -> None:
    for other, wanted in parameters[name].conditions.items():
        if other not in point:
            raise UserError(
                f"{where} names {name}, which is drawn when {other} is {either(wanted)}, but not {other}. "
                f"Add {other}: {wanted[0]}."
            )
        if point[other] not in wanted:
            raise UserError(
                f"{where} names {name}, which is drawn when {other} is {either(wanted)}, not {point[other]!r}. "
                f"Leave {name} out, or change {other}."
            )
