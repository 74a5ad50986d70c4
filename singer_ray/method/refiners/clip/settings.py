"""Settings of norm clipping."""

from __future__ import annotations

from pydantic import Field

from singer_ray.method.refiners.description import Description
from singer_ray.settings import Block


class ClipConfig(Block):
    """The refiner clip."""

    ratio: float = Field(1.5, gt=0)
    """Longest patch that is left, as a multiple of the median norm of its image."""


DESCRIPTION = Description("clip (norms to a multiple of the median), quantile_clip", ClipConfig, lengths_only=True)
