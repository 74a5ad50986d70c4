"""What a teacher wrapper is: the shared frozen teacher, read so that its features have fewer artifacts."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, ClassVar

import torch

from singer_ray.vision.tapped import TappedViT

if TYPE_CHECKING:
    from singer_ray.config import MethodConfig


class TeacherWrapper(TappedViT):
    """Base class: the teacher as it is.

    A subclass overrides `forward`, and `replay` where block outputs alone do not say how a block is run again. Several
    trials share the network inside, so it must be as before when a pass has ended: hooks are for one pass only.

    Args:
        teacher: the network and the layers that are read.
        size: of the square images, in pixels.
        seed: for whatever it draws.
    """

    replays: ClassVar[bool] = True
    """Whether block l + 1, replayed on the features of layer l, gives the features of layer l + 1."""

    def __init__(self, teacher: TappedViT, method: MethodConfig, *, size: int, seed: int) -> None:
        super().__init__(teacher.model, teacher.layers, name=teacher.name)

    @classmethod
    def check(cls, teacher: TappedViT, method: MethodConfig, size: int) -> None:
        """Raises UserError when it cannot stand before this teacher; asks for shapes alone, not for weights."""

    @property
    def key(self) -> Hashable:
        """Equal for wrappers of one class that give the same features, so that one pass serves both."""
        return None

    def observe(self, images: torch.Tensor) -> None:
        """Shown the calibration images, normalised [batch, 3, size, size], before a fresh start; not in a resume."""

    def notes(self) -> list[str]:
        """What a user should know about the start, a line each."""
        return []

    def found(self) -> dict[str, torch.Tensor]:
        """What `observe` has found: part of a checkpoint, and sent to all processes that train one student."""
        return {}

    def take(self, found: Mapping[str, torch.Tensor]) -> None:
        """Goes on with what another one has `found`. Raises KeyError where something is missing."""
