"""How the teacher's features are cleaned."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from singer_ray.config.block import Block

MAX_STRENGTH = 1.25
"""Above it the artifacts come back with the opposite sign."""


class LossConfig(Block):
    """Weights of the loss terms (paper equation 9)."""

    kd: float = Field(1.0, gt=0)
    """Weight of L_KD."""
    outlier: float = Field(0.1, ge=0)
    """lambda_outlier, weight of the norm suppression."""
    info: float = Field(50.0, ge=0)
    """lambda_info, weight of the Gram information loss. Above about 500 x lambda_outlier, suppression gets weak."""


class PrefitConfig(Block):
    """Fitting of the refiner alone, before the student starts."""

    steps: int = Field(200, ge=0)
    """Steps; 0 starts the student at once."""
    lr: float = Field(5e-3, gt=0)
    """Learning rate of AdamW."""
    batch_size: int = Field(32, ge=1)
    """Images per step."""


class ClipConfig(Block):
    """The refiner clip."""

    ratio: float = Field(1.5, gt=0)
    """Longest patch that is left, as a multiple of the median norm of its image."""


class QuantileClipConfig(Block):
    """The refiner quantile_clip."""

    quantile: float = Field(0.95, gt=0, lt=1)
    """Longest patch that is left, as a quantile of the norms of its image."""


class VitkdConfig(Block):
    """The baseline vitkd."""

    mask_ratio: float = Field(0.5, gt=0, lt=1)
    """Share of patches that are masked and must be generated."""


class MethodConfig(Block):
    """How the teacher's features are cleaned."""

    refiner: Literal["singer", "none", "vitkd", "clip", "layernorm", "quantile_clip"] = "singer"
    """singer (low-rank adapter, arXiv 2509.20986), or a baseline: none (plain feature distillation, FitNet), vitkd
    (masked generation), clip (norms to a multiple of the median), quantile_clip, layernorm (normalised targets)."""
    variant: Literal["recommended", "paper", "official"] = "recommended"
    """Of singer: recommended; paper (as written: null space on both sides, joint training); official (the authors'
    code, whose weights are kd 100 or 1, outlier 0.01, info 1). The last two use neither prefit nor detach_target."""
    linearization: Literal["auto", "mlp", "attention_mlp", "jacobian", "random", "pca"] = "auto"
    """Of singer, where Phi_down starts: what the next block reads least by its MLP (mlp), by attention and MLP
    (attention_mlp), by Jacobian products on images (jacobian); random directions; those along which features vary most
    (pca). auto is attention_mlp, and mlp in the variant official."""
    jacobian_probes: int = Field(8, ge=1)
    """Random vector-Jacobian products of the linearization jacobian."""
    official_threshold: float = Field(1e-3, gt=0)
    """Of the variant official: singular values below it count as null."""
    gate: float = Field(0.0, ge=0)
    """Of singer: only patches above this multiple of their image's median norm are changed; 0 changes all."""
    radial: bool = True
    """Of singer, variant recommended: the student is shown patches that are all of the layer's median length. A
    pre-norm block hardly reads lengths, so this part of the refinement needs no trade-off."""
    rank: int = Field(16, ge=1)
    """Rank of the adapter: at least the number of artifact directions, at most the teacher's width."""
    strength: float = Field(1.0, ge=0, le=MAX_STRENGTH)
    """How much of the fitted change the student is shown: 0 none, 1 all, at most 1.25."""
    outlier_quantile: float = Field(0.95, gt=0, lt=1)
    """gamma: patches with a norm above this quantile of their image are suppressed."""
    detach_target: bool = True
    """Keep the distillation gradient away from the adapter."""
    loss: LossConfig = LossConfig()
    prefit: PrefitConfig = PrefitConfig()
    clip: ClipConfig = ClipConfig()
    quantile_clip: QuantileClipConfig = QuantileClipConfig()
    vitkd: VitkdConfig = VitkdConfig()
