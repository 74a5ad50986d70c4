"""Settings of test-time registers."""

from __future__ import annotations

from pydantic import Field

from singer_ray.method.wrappers.description import WrapperDescription
from singer_ray.settings import Block


class RegistersConfig(Block):
    """The wrapper registers."""

    ratio: float = Field(4.0, gt=1)
    """A patch is an outlier when its norm is above this multiple of the median norm of its image."""
    neurons: int = Field(32, ge=1)
    """Most hidden units that are moved; how many of them are is found on the calibration images."""
    last_block: int | None = Field(None, ge=0)
    """Last block whose hidden units are looked at; none: the first behind which nine in ten outliers stand out."""


DESCRIPTION = WrapperDescription("registers (a token that takes the artifacts up, arXiv 2506.08010)", RegistersConfig)
