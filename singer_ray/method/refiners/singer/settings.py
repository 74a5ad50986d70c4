"""SiNGER's settings. It is the method itself, so they stand in `method`, not in a block below it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from singer_ray.method.refiners.description import Description
from singer_ray.settings import Block, Condition, above_zero, any_of, only

MAX_STRENGTH = 1.25
"""Above it the artifacts come back with the opposite sign."""


class SingerConfig(Block):
    """The refiner singer."""

    variant: Literal["recommended", "paper", "official"] = "recommended"
    """Of singer: recommended; paper (as written: null space on both sides, joint training); official (the authors'
    code, whose weights are kd 100 or 1, outlier 0.01, info 1). The last two use neither prefit nor detach_target."""
    linearization: Literal["auto", "spectral", "mlp", "attention_mlp", "jacobian", "random", "pca"] = "auto"
    """Of singer, where the adapter starts: in the closed form that takes the artifacts' own directions out (spectral);
    at no change, along what the next block reads least by its MLP (mlp), by attention and MLP (attention_mlp), by
    Jacobian products on images (jacobian); along random directions, or those along which features vary most (pca).
    auto is spectral; in the variant paper attention_mlp, in the variant official mlp."""
    freeze: bool = True
    """Of singer, variant recommended: the adapter learns in the pre-fit only and stays as it is while the student
    trains; a step then runs no block of the teacher again."""
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
    """Rank of the adapter: at least the number of artifact directions, at most the teacher's width. Of the
    linearization spectral: the most directions that are taken out; how many there are is found."""
    strength: float = Field(1.0, ge=0, le=MAX_STRENGTH)
    """How much of the adapter's change the student is shown: 0 none, 1 all, at most 1.25."""
    outlier_quantile: float = Field(0.95, gt=0, lt=1)
    """gamma: patches with a norm above this quantile of their image are suppressed."""

    @property
    def start_from(self) -> str:
        """The linearization, `auto` resolved."""
        return _AUTO[self.variant] if self.linearization == "auto" else self.linearization

    def check_variant(self) -> None:
        """Raises ValueError for settings that contradict the variant."""
        if self.variant == "recommended":
            return
        if self.linearization == "spectral":
            raise ValueError(
                f"method.linearization is 'spectral', but the variant {self.variant} trains an adapter from the null "
                "space. Use auto, or --method.variant recommended"
            )
        if self.strength != 1:
            raise ValueError(
                f"method.strength is {self.strength}, but the variant {self.variant} trains adapter and "
                "student jointly at full strength. Use 1, or --method.variant recommended"
            )
        if self.variant == "official" and self.linearization not in ("auto", "mlp"):
            raise ValueError(
                f"method.linearization is {self.linearization!r}, but the variant official has its own. "
                "Allowed: auto or mlp; or --method.variant paper or recommended"
            )


_AUTO = {"recommended": "spectral", "paper": "attention_mlp", "official": "mlp"}
_RECOMMENDED = only("method.variant", "recommended")
_LEARNS = Condition(
    lambda c: c.method.adapter_learns,
    ("method.variant", "method.linearization", "method.prefit.steps", "method.freeze"),
    "method.prefit.steps above 0 or method.freeze false",
)
_NOT_OFFICIAL = only("method.variant", "recommended", "paper")
DESCRIPTION = Description(
    "singer (low-rank adapter, arXiv 2509.20986)",
    shared={
        **dict.fromkeys(SingerConfig.model_fields, ()),
        "linearization": (_NOT_OFFICIAL,),
        "jacobian_probes": (_NOT_OFFICIAL, only("method.linearization", "jacobian")),
        "official_threshold": (only("method.variant", "official"),),
        "radial": (_RECOMMENDED,),
        "freeze": (_RECOMMENDED,),
        "outlier_quantile": (_LEARNS,),
        "loss.outlier": (_LEARNS,),
        "loss.info": (_LEARNS,),
    },
    fitted=(_RECOMMENDED, any_of(above_zero("method.loss.outlier"), above_zero("method.loss.info"))),
    place=0,
)
