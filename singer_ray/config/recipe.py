"""How a small teacher is trained from scratch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TeacherRecipe:
    """How a small teacher is trained from scratch (`python -m singer_ray.teacher`)."""

    plant: bool = False
    """Also plant artifacts (needs a source with masks, and 3 blocks or more)."""
    steps: int = 2000
    """Optimiser steps."""
    batch_size: int = 48
    """Images per step."""
    lr: float = 1e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.05
    """Weight decay of AdamW."""
    scenes: int = 24000
    """Scenes to train on (data.source scenes); data.scenes.train_images is for distillation."""
    width: int = 64
    """Embedding dimension."""
    depth: int = 6
    """Blocks."""
    heads: int = 2
    """Attention heads."""
    patch_size: int = 4
    """Patch height and width, in pixels."""
    plant_units: int = 3
    """Directions that the planted artifacts have."""
    plant_share: float = 0.04
    """Share of background patches that become artifacts."""
    plant_block: int = 2
    """Block that makes the artifacts, counted from 0."""
    plant_steps: int = 250
    """Steps of fine-tuning behind the planted block."""
    plant_lr: float = 1e-3
    """Peak learning rate of that fine-tuning."""
