"""How the teacher's features are cleaned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, create_model

from singer_ray.method.refiners import described, names
from singer_ray.method.refiners.singer.settings import SingerConfig
from singer_ray.settings import Block

PREFIT_STEPS = 200
"""Steps of a pre-fit where none are given and the adapter needs one."""


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

    steps: int | None = Field(None, ge=0)
    """Steps; 0 starts the student at once. None is 0 for the linearization spectral, which needs no fitting, else
    200."""
    lr: float = Field(5e-3, gt=0)
    """Learning rate of AdamW."""
    batch_size: int = Field(32, ge=1)
    """Images per step."""


def _help() -> str:
    first, *baselines = (each.help for each in described().values() if each.help)
    return f"{first}, or a baseline: {', '.join(baselines)}."


if TYPE_CHECKING:
    RefinerName = str

    class _OwnBlocks(Block):
        """The refiners' own blocks, `method.NAME`."""
else:
    RefinerName = Literal[tuple(described())]
    _blocks = {name: described()[name].block for name in names() if described()[name].block is not None}
    _OwnBlocks = create_model(
        "_OwnBlocks", __base__=Block, __module__=__name__, **{name: (block, block()) for name, block in _blocks.items()}
    )


class _Choice(Block):
    refiner: RefinerName = Field("singer", description=_help())


class _Training(Block):
    detach_target: bool = True
    """Keep the distillation gradient away from the adapter."""
    loss: LossConfig = LossConfig()
    prefit: PrefitConfig = PrefitConfig()


class MethodConfig(_OwnBlocks, _Training, SingerConfig, _Choice):  # fields in the order of _Choice to _OwnBlocks
    """How the teacher's features are cleaned."""

    @property
    def prefit_steps(self) -> int:
        """`prefit.steps`, None resolved; what it means for the chosen refiner is another question."""
        if self.prefit.steps is not None:
            return self.prefit.steps
        closed = self.refiner == "singer" and self.start_from == "spectral"
        return 0 if closed else PREFIT_STEPS

    @property
    def adapter_learns(self) -> bool:
        """Whether the adapter of singer is ever fitted: before the student, or beside it."""
        return self.variant != "recommended" or not self.freeze or self.prefit_steps > 0

    def check_adapter(self) -> None:
        """Raises ValueError for an adapter that would stay without effect."""
        if self.start_from != "spectral" and not self.adapter_learns:
            raise ValueError(
                f"method.prefit.steps is 0 and method.freeze is true, so an adapter of method.linearization "
                f"{self.start_from} would never change anything. Use --method.prefit.steps {PREFIT_STEPS}, "
                "--method.freeze false or --method.linearization spectral"
            )

    def own(self, refiner: str) -> Any:
        """The block of one refiner, `method.NAME`."""
        return getattr(self, refiner)
