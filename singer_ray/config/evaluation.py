"""How students are scored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from singer_ray.config.sources import EvaluationSourceConfig
from singer_ray.settings import Block


class KnnConfig(Block):
    """The nearest-neighbour probe."""

    k: int = Field(20, ge=1)
    """Neighbours."""
    temperature: float = Field(0.07, gt=0)
    """Votes are weighted exp(cosine / temperature)."""


class OfficialConfig(Block):
    """Heads trained as the paper's code trains them (evaluation.protocol official)."""

    epochs: int = Field(150, ge=1)
    """Passes over the fit images; the paper's code is run with 150 for classification and 200 for the dense heads."""
    batch_size: int = Field(64, ge=1)
    """Images per step."""
    lr: float = Field(0.5, gt=0)
    """Peak learning rate of SGD without momentum; it falls as a half cosine."""
    weight_decay: float = Field(1e-6, ge=0)
    """Weight decay of SGD."""
    mode: Literal["cls", "avg"] = "cls"
    """What the classification head reads: the class token, or the mean of the patch tokens."""
    max_depth: float = Field(0.0, ge=0)
    """Depth of the last of the 256 bins, in the source's unit (NYUd: 10); 0 takes the largest of the fit images."""


class EvaluationConfig(Block):
    """Frozen-feature probes of the student."""

    data: EvaluationSourceConfig = EvaluationSourceConfig()
    protocol: Literal["probes", "official"] = "probes"
    """probes (fitted to their optimum), or official (heads trained by SGD); training always uses probes."""
    every: int = Field(1, ge=1)
    """Epochs between evaluations; the last epoch is always evaluated."""
    fit_images: int = Field(1024, ge=0)
    """Training images that the probes are fitted on, the first of a fixed shuffle; 0 means all."""
    pooling: Literal["mean", "class"] = "mean"
    """What stands for an image: the mean of its patch tokens, or the class token."""
    l2: float = Field(1e-4, ge=0)
    """Regulariser of the linear probes."""
    l2_grid: tuple[Annotated[float, Field(ge=0)], ...] = (1e-5, 1e-4, 1e-3, 1e-2)
    """Regularisers that the evaluate command chooses from, on validation; empty: l2. Training always uses l2."""
    knn: KnnConfig = KnnConfig()
    batch_size: int = Field(128, ge=1)
    """Images per forward pass."""
    artifact_ratio: float = Field(4.0, gt=1)
    """A patch is an artifact when its norm is above this many times the median norm of its image."""
    official: OfficialConfig = OfficialConfig()
