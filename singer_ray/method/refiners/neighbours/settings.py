"""Settings of the mean over neighbours."""

from __future__ import annotations

from pydantic import Field

from singer_ray.method.refiners.description import Description
from singer_ray.settings import Block


class NeighboursConfig(Block):
    """The refiner neighbours."""

    ratio: float = Field(2.0, gt=0)
    """A patch is defective when its norm is above this multiple of the median norm of its image."""
    sigma: float = Field(1.0, gt=0)
    """Standard deviation of the weights around a defective patch, in patches."""


DESCRIPTION = Description("neighbours (defective patches from those around them)", NeighboursConfig)
