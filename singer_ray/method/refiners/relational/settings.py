"""Settings of relational distillation."""

from __future__ import annotations

from pydantic import Field

from singer_ray.method.refiners.description import Description
from singer_ray.settings import Block


class RelationalConfig(Block):
    """The baseline relational."""

    temperature: float = Field(0.07, gt=0)
    """Of the softmax over cosine similarities: the lower, the more only the most similar patches count."""
    queue: int = Field(1024, ge=0)
    """Earlier images that each image is compared with, by pooled features; 0 compares patches of one image only."""


DESCRIPTION = Description(
    "relational (similarities between patches, blind to norms)", RelationalConfig, plain_loss=None
)
