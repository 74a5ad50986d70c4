"""What goes in: images, teacher, student."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from singer_ray.config.places import Place
from singer_ray.config.sources import SourceConfig
from singer_ray.settings import Block


class DataConfig(SourceConfig):
    """The images that teacher and student see."""

    image_size: int = Field(224, ge=1)
    """Height and width of the input, in pixels."""
    crop_pct: float = Field(1.0, gt=0, le=1)
    """Evaluation view: resize the shorter side to image_size / crop_pct, then cut the centre."""
    augment: Literal["none", "crop_flip"] = "none"
    """Training view: none (the evaluation view) or crop_flip (random resized crop and horizontal flip)."""
    crop_scale: tuple[float, float] = (0.4, 1.0)
    """Smallest and largest share of the image area that crop_flip keeps."""
    loader_workers: int = Field(0, ge=0)
    """Processes that decode images, for each training worker; 0 decodes in the worker itself."""


class TeacherConfig(Block):
    """The large network."""

    name: Place = "demo"
    """demo, demo-clean, a timm name, hf-hub:owner/model, or local-dir:folder."""
    checkpoint: Place | None = None
    """File of weights to load instead of the published ones."""
    pretrained: bool = True
    """Load the published weights. False gives random ones: only for trying things out."""
    layers: tuple[int, ...] = ()
    """Distilled teacher layers, ascending from 0; empty picks the one at 3/4 of the depth and the last."""


class StudentConfig(Block):
    """The small network. Fields left None keep what the named architecture has."""

    name: Place = "vit_tiny_patch16_224"
    """timm architecture, hf-hub:owner/model, or local-dir:folder; its weights start fresh, see init and pretrained."""
    width: int | None = Field(None, ge=1)
    """Embedding dimension."""
    depth: int | None = Field(None, ge=1)
    """Number of blocks."""
    heads: int | None = Field(None, ge=1)
    """Attention heads; must divide the width."""
    patch_size: int | None = Field(None, ge=1)
    """Patch height and width, in pixels."""
    registers: int = Field(0, ge=0)
    """Register tokens, which follow the class token; 0 keeps what the named architecture has, mostly none."""
    init: Literal["random", "copy"] = "random"
    """Initial weights: random, or copy (evenly spaced blocks of the teacher, and the leading channels of each). copy
    needs a student of the teacher's architecture that is neither wider nor deeper."""
    pretrained: bool = False
    """Start from the published weights of the named architecture."""
    checkpoint: Place | None = None
    """File of weights to start from."""
    layers: tuple[int, ...] = ()
    """Student layers that learn from teacher.layers, one each; empty maps by relative depth."""

    def check_start(self) -> None:
        """Raises ValueError where several settings say what the weights start from."""
        starts = {
            "student.init copy": self.init == "copy",
            "student.pretrained": self.pretrained,
            "student.checkpoint": self.checkpoint is not None,
        }
        named = [start for start, given in starts.items() if given]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} each say what the student's weights start from. Use one of them")
