"""Settings of the average over shifted views."""

from __future__ import annotations

from pydantic import Field

from singer_ray.method.wrappers.description import WrapperDescription
from singer_ray.settings import Block


class ShiftAverageConfig(Block):
    """The wrapper shift_average."""

    views: int = Field(8, ge=2)
    """Views of an image, the first as it is; a teacher pass takes as many passes."""
    shift: int = Field(2, ge=1)
    """Furthest that a view is shifted along each side, in patches."""
    flips: bool = False
    """Whether half of the shifts are of the mirrored image."""


DESCRIPTION = WrapperDescription(
    "shift_average (mean over shifted views, arXiv 2505.21501)",
    ShiftAverageConfig,
    passes=lambda block: block.views,
)
