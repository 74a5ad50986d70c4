"""Settings of norm clipping at a quantile."""

from __future__ import annotations

from pydantic import Field

from singer_ray.method.refiners.description import Description
from singer_ray.settings import Block


class QuantileClipConfig(Block):
    """The refiner quantile_clip."""

    quantile: float = Field(0.95, gt=0, lt=1)
    """Longest patch that is left, as a quantile of the norms of its image."""


DESCRIPTION = Description("", QuantileClipConfig, lengths_only=True)
