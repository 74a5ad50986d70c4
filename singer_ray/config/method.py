"""How the teacher's features are cleaned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, create_model

from singer_ray.method import wrappers
from singer_ray.method.refiners import described, names
from singer_ray.method.refiners.description import LENGTHS_COUNT
from singer_ray.method.refiners.singer.settings import SingerConfig
from singer_ray.settings import Block

if TYPE_CHECKING:
    from singer_ray.config.tree import Config

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
    class_token: float = Field(1.0, ge=0)
    """How much the class token counts in L_KD, relative to one patch: 1 makes it one token among all, the number of
    patches lets it weigh as much as all of them together, 0 leaves it out."""
    gram: float = Field(0.0, ge=0)
    """Weight of the Gram loss between student and target: the cosine similarities of their patches are compared,
    without a projection. 0 leaves it out."""


class StandardizeConfig(Block):
    """The target standardize."""

    momentum: float = Field(0.01, ge=0, lt=1)
    """Share of the running mean and variance that each step's batch replaces; 0 keeps those of the calibration
    images."""


class SmoothL1Config(Block):
    """The distances smooth_l1 and mixed."""

    beta: float = Field(2.0, gt=0)
    """Difference between student and target at which smooth-L1 turns from squared to linear; targets have a variance of
    about 1."""


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


def _help_of_wrappers() -> str:
    listed = ", ".join(each.help for each in wrappers.described().values())
    return f"What the teacher is read through, before any refiner: {listed}."


if TYPE_CHECKING:
    RefinerName = str
    WrapperName = str

    class _OwnBlocks(Block):
        """The own blocks of refiners and wrappers, `method.NAME`."""
else:
    RefinerName = Literal[tuple(described())]
    WrapperName = Literal[tuple(wrappers.described())]
    _all = [*((n, described()[n]) for n in names()), *wrappers.described().items()]
    _blocks = {name: each.block for name, each in _all if each.block is not None}
    _OwnBlocks = create_model(
        "_OwnBlocks", __base__=Block, __module__=__name__, **{name: (block, block()) for name, block in _blocks.items()}
    )


class _Choice(Block):
    refiner: RefinerName = Field("singer", description=_help())
    wrapper: WrapperName = Field("none", description=_help_of_wrappers())


class _Training(Block):
    detach_target: bool = True
    """Keep the distillation gradient away from the adapter."""
    target: Literal["plain", "layernorm", "standardize"] = "plain"
    """What is done to the refined features before the student is compared with them: nothing (plain), a LayerNorm of
    each token (layernorm, arXiv 2205.14141), or a standardisation of each channel by a running mean and variance, class
    token and patches apart (standardize)."""
    distance: Literal["mse", "smooth_l1", "cosine", "mixed"] = "mse"
    """How student and target are compared, token by token: mean squared error, smooth-L1, 1 - cosine, or 0.9 x cosine +
    0.1 x smooth-L1 (mixed, arXiv 2312.06709)."""
    standardize: StandardizeConfig = StandardizeConfig()
    smooth_l1: SmoothL1Config = SmoothL1Config()
    projector: Literal["linear", "mlp", "orthogonal"] = "linear"
    """What takes the student's features to the teacher's width: linear; mlp (two layers with GELU, the hidden one as
    wide as the teacher); orthogonal (linear, its columns orthonormal)."""
    loss: LossConfig = LossConfig()
    prefit: PrefitConfig = PrefitConfig()


class MethodConfig(_OwnBlocks, _Training, SingerConfig, _Choice):  # fields in the order of _Choice to _OwnBlocks
    """How the teacher's features are cleaned."""

    def own(self, name: str) -> Any:
        """The block of one refiner or wrapper, `method.NAME`."""
        return getattr(self, name)

    @property
    def costs(self) -> list[str]:
        """What it costs beyond one pass of the teacher for each image, a line each."""
        passes = wrappers.described()[self.wrapper].passes(getattr(self, self.wrapper, None))
        return [f"every teacher pass is {passes} passes (method.wrapper {self.wrapper})"] if passes > 1 else []

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


PLAIN: Mapping[str, object] = {"method.target": "plain", "method.distance": "mse", "method.loss.class_token": 1.0}
"""The settings that only the plain L_KD has, and the values that leave every refiner's loss as it is."""


def check_comparison(config: Config) -> None:
    """Raises ValueError where target or distance do not reach the refiner's loss, or undo what it does."""
    method = config.method
    refiner, name = described()[method.refiner], method.refiner
    for setting, plain in PLAIN.items():
        if config.value(setting) != plain and not refiner.keeps_plain_loss(config):
            variant = f", variant {method.variant}," if refiner.plain_loss else ""
            raise ValueError(
                f"{setting} is {config.value(setting)!r}, but the refiner {name}{variant} has a distillation loss of "
                f"its own. Use {plain!r}, or another --method.refiner"
            )
    if method.target == "layernorm" and refiner.normalizes:
        raise ValueError(
            f"method.target is 'layernorm', but the refiner {name} has normalised the tokens already. "
            "Use --method.target plain, or --method.refiner none"
        )
    if refiner.lengths_only and not LENGTHS_COUNT.holds(config):
        setting = "method.target" if method.target == "layernorm" else "method.distance"
        raise ValueError(
            f"{setting} is {config.value(setting)!r}, which does not see lengths, but the refiner {name} changes "
            "nothing else. Use --method.refiner none, or another target or distance"
        )
