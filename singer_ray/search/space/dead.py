"""Parameters of a space that have no effect."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from singer_ray.config.effect import deciding, explain_dead, has_effect, remarks
from singer_ray.errors import UserError

if TYPE_CHECKING:
    from singer_ray.config import Config
    from singer_ray.search.space.space import SearchSpace


def space_remarks(space: SearchSpace, config: Config, given: Collection[str]) -> list[str]:
    """A line for each setting in `given`, and each parameter, that has no effect at some points of the space.

    `config` is the one that trials start from. Raises UserError for a parameter without effect at every point: a
    search for its value would fit noise.
    """
    lines = remarks(given, [config, *space.corners(config)], "tune")
    for name in space.parameters:
        places = []
        for point in space.points_around(name, deciding(name)):
            try:
                places.append(config.override(point))
            except UserError:  # a combination that is refused: no trial can have it either
                continue
        without = [place for place in places if not has_effect(name, place)]
        if places and len(without) == len(places):
            raise UserError(f"{name} is searched, but {explain_dead(name, without[0])}.")
        if without:
            lines.append(
                f"at some points of the space {explain_dead(name, without[0])}: a `when` says where it counts."
            )
    return lines
