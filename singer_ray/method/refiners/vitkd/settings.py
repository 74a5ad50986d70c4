"""Settings of ViTKD."""

from __future__ import annotations

from pydantic import Field

from singer_ray.method.refiners.description import Description
from singer_ray.settings import Block


class VitkdConfig(Block):
    """The baseline vitkd."""

    mask_ratio: float = Field(0.5, gt=0, lt=1)
    """Share of patches that are masked and must be generated."""


DESCRIPTION = Description("vitkd (masked generation)", VitkdConfig, plain_loss=None, place=2)
