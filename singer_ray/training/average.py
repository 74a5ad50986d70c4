"""The moving average of the weights that are trained."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from timm.utils import ModelEmaV3
from torch import nn

from singer_ray.method.distiller import Distiller


class WeightAverage:
    """Exponential moving average of a student and its projections, as a distiller that shares the original's refiner.

    After step t the average moves 1 - d of the way to the weights, where d = min(decay, 1 - t^(-2/3)): timm's warm-up,
    without which the initial weights would still make decay^t of a short run's average. Equal in all processes, since
    the weights are.
    """

    def __init__(self, distiller: Distiller, decay: float) -> None:
        parts = {"student": distiller.student, "projections": distiller.projections}
        self._trained = nn.ModuleDict(parts)
        self._ema = ModelEmaV3(self._trained, decay=decay, use_warmup=True)
        shared = {id(part): self._ema.module[name] for name, part in parts.items()}
        shared[id(distiller.refiner)] = distiller.refiner
        self.distiller: Distiller = copy.deepcopy(distiller, shared)  # what is in `shared` is taken instead of copied

    @staticmethod
    def note(decay: float) -> str:
        """What a person should know of the scores."""
        return (
            f"scores and the exported student are those of the moving average of its weights (decay {decay:g}, in "
            "step t at most 1 - t^(-2/3)); losses are those of the weights that are trained"
        )

    def decay_at(self, step: int) -> float:
        """The decay of step `step`, counted from 1."""
        return float(self._ema.get_decay(step))

    def update(self, step: int) -> None:
        """Takes in the weights after step `step`, counted from 1."""
        self._ema.update(self._trained, step=step)
        self.distiller.retract()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The averaged weights, by their names in the distiller."""
        return dict(self._ema.module.state_dict())

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Takes up where `state` was taken. Raises RuntimeError for that of another student."""
        self._ema.module.load_state_dict(state)
