"""Paths and addresses among the settings and flags: `~` and $VARIABLES in them mean what they mean in a shell."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from pydantic import AfterValidator

from singer_ray.storage.address import expanded, expanded_as

Flags = TypeVar("Flags")

_EXPANDED = AfterValidator(expanded)
Place = Annotated[str, _EXPANDED]
"""A path or an address; as a flag's type it is found by `with_places`."""


def with_places(flags: Flags, *, optional: Collection[str] = (), metavar: str = "NAME") -> Flags:
    """A command's flags with all paths and addresses in them expanded; those that are `optional` may be empty.

    Raises UserError, which names the flag, or says `metavar` of arguments without a name.
    """
    expanded: dict[str, Any] = {}
    for name, hint in get_type_hints(type(flags), include_extras=True).items():
        value = getattr(flags, name)
        if value is not None and _is_place(hint) and not (value == "" and name in optional):
            setting = metavar if isinstance(value, tuple) else f"--{name.replace('_', '-')}"
            expanded[name] = (
                tuple(_place(v, setting) for v in value) if isinstance(value, tuple) else _place(value, setting)
            )
    return dataclasses.replace(flags, **expanded) if expanded else flags  # type: ignore[type-var]


def _is_place(hint: Any) -> bool:
    return hint is Path or hint is _EXPANDED or any(map(_is_place, get_args(hint)))


def _place(value: str | Path, setting: str) -> str | Path:
    place = expanded_as(str(value), setting)
    return Path(place) if isinstance(value, Path) else place
