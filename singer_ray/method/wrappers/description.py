"""What configuration must know of a teacher wrapper, without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from singer_ray.settings import Block, Condition, only

Conditions = tuple[Condition, ...]


@dataclass(frozen=True)
class WrapperDescription:
    """A wrapper as the configuration sees it; `settings.py` of its folder calls it DESCRIPTION."""

    help: str
    """Its part of the help of `method.wrapper`."""
    block: type[Block] | None = None
    """Its own settings: they become `method.NAME.SETTING`, in files, in search spaces and on the command line."""
    conditions: Mapping[str, Conditions] = field(default_factory=dict)
    """Setting of its block -> what must hold, besides that this wrapper is chosen, for it to have an effect."""

    passes: Callable[[Any], int] = lambda block: 1
    """From its block of settings: how many passes of the network a teacher pass takes."""

    def effects(self, name: str) -> dict[str, Conditions]:
        """Dotted name of each setting that only the wrapper `name` reads -> when it has an effect."""
        chosen = only("method.wrapper", name)
        own = self.block.model_fields if self.block is not None else ()
        return {f"method.{name}.{setting}": (chosen, *self.conditions.get(setting, ())) for setting in own}
