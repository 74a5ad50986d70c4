"""What configuration must know of a refiner, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from singer_ray.settings import Block, Condition, only

if TYPE_CHECKING:
    from singer_ray.config import Config

Conditions = tuple[Condition, ...]
LENGTHS_COUNT = Condition(
    lambda c: c.method.target == "standardize" or (c.method.target == "plain" and c.method.distance != "cosine"),
    ("method.target", "method.distance"),
    "method.target standardize, or plain with a method.distance other than cosine",
)
"""Where the length of a target's token decides anything in the plain L_KD."""


@dataclass(frozen=True)
class Description:
    """A refiner as the configuration sees it; `settings.py` of its folder calls it DESCRIPTION."""

    help: str
    """Its part of the help of `method.refiner`; empty where another's part names it."""
    block: type[Block] | None = None
    """Its own settings: they become `method.NAME.SETTING`, in files, in search spaces and on the command line."""
    conditions: Mapping[str, Conditions] = field(default_factory=dict)
    """Setting of its block -> what must hold, besides that this refiner is chosen, for it to have an effect."""
    shared: Mapping[str, Conditions] = field(default_factory=dict)
    """The same for settings outside its block that only this refiner reads, by their names within `method`."""
    fitted: Conditions | None = None
    """What must hold for it to be fitted alone before the student starts; None where it never is."""
    plain_loss: Conditions | None = ()
    """What must hold for it to keep the plain L_KD, which `method.target` and `method.distance` shape; None where it
    has a loss of its own."""
    normalizes: bool = False
    """Whether it normalises each patch as the target layernorm does."""
    lengths_only: bool = False
    """Whether it changes nothing but the lengths of patches."""
    place: int = 10
    """Where messages list it: by this number, then by name."""

    def effects(self, name: str) -> dict[str, Conditions]:
        """Dotted name of each setting that only the refiner `name` reads -> when it has an effect."""
        chosen = only("method.refiner", name)
        own = self.block.model_fields if self.block is not None else ()
        return {
            **{f"method.{setting}": (chosen, *more) for setting, more in self.shared.items()},
            **{f"method.{name}.{setting}": (chosen, *self.conditions.get(setting, ())) for setting in own},
        }

    def keeps_plain_loss(self, config: Config) -> bool:
        """Whether `plain_loss` holds."""
        return self.plain_loss is not None and all(each.holds(config) for each in self.plain_loss)

    def fitted_if(self, name: str) -> Conditions:
        """`fitted`, and that the refiner `name` is chosen."""
        return (only("method.refiner", name), *(self.fitted or ()))
