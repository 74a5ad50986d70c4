"""Relational distillation: which patches are alike, and which images, rather than what their features are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from singer_ray.method.losses import directions
from singer_ray.method.processes import gathered
from singer_ray.method.refiners.base import Refiner

if TYPE_CHECKING:
    from singer_ray.config import MethodConfig
    from singer_ray.method.refiners.relational.settings import RelationalConfig
    from singer_ray.vision.tapped import TappedViT

LEFT_OUT = -1e9
"""A similarity that no softmax sees; finite, so that 0 x (difference of logarithms) is 0."""


class Relational(Refiner):
    """L_KD is a KL divergence between cosine similarities, so the length of a token means nothing to it.

    At each layer, every patch has a softmax over its similarities to the other patches of its image, at
    `method.relational.temperature`; the loss is the divergence of the student's from the teacher's, averaged over
    patches. With `method.relational.queue` the same divergence is added for each image's similarities to earlier
    images. Student and teacher may differ in width: the student's own tokens are compared, and no projection is
    trained.
    """

    projects = False

    def __init__(self, teacher: TappedViT, layers: Sequence[int], method: MethodConfig) -> None:
        super().__init__(teacher, layers, method)
        settings: RelationalConfig = method.own("relational")
        self.temperature, self.size = settings.temperature, settings.queue
        self.queues = nn.ModuleDict()

    def meet(self, student: TappedViT) -> None:
        if self.size:
            self.queues = nn.ModuleDict(
                {str(n): PooledQueue(self.size, self.width, student.width) for n in self.layers}
            )

    def distill(self, layer: int, student: torch.Tensor, target: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        loss = self.distill_by_token(layer, student, target, grid).mean()
        if not self.size:
            return loss
        count = grid[0] * grid[1]
        with torch.autocast(student.device.type, enabled=False):
            by_image: torch.Tensor = self.queues[str(layer)](
                pooled(directions(student[:, -count:])),
                pooled(teacher_directions(target[:, -count:])),
                self.temperature,
            )
        return loss + by_image.mean()

    def distill_by_token(
        self, layer: int, student: torch.Tensor, target: torch.Tensor, grid: tuple[int, int]
    ) -> torch.Tensor:
        count = grid[0] * grid[1]
        with torch.autocast(student.device.type, enabled=False):
            own, wanted = directions(student[:, -count:]), teacher_directions(target[:, -count:])
            # A patch is like itself whatever the features are, and more so than like any other: at a low temperature
            # the diagonal would take most of both softmaxes and leave little gradient to what differs.
            itself = torch.eye(count, dtype=torch.bool, device=student.device)
            return divergence(wanted @ wanted.mT, own @ own.mT, itself, self.temperature)


class PooledQueue(nn.Module):
    """The directions of earlier images' pooled features, of teacher and student, the oldest of which are replaced.

    Each network is compared with its own features of the same images (the two queues of CompRess, arXiv 2010.14713),
    so their widths may differ. All processes hold the images of all, in the order of the whole batch.
    """

    teacher: torch.Tensor
    student: torch.Tensor
    seen: torch.Tensor

    def __init__(self, size: int, teacher_width: int, student_width: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("teacher", torch.zeros(size, teacher_width))
        self.register_buffer("student", torch.zeros(size, student_width))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """Pooled features of a batch, [batch, width], both -> divergence by image, [batch]; 0 while nothing is queued.

        In training mode the batch is queued afterwards.
        """
        empty = torch.arange(self.size, device=student.device) >= self.seen
        # A copy, because the gradient needs what the queue was when it was read.
        by_image = divergence(teacher @ self.teacher.T, student @ self.student.clone().T, empty, temperature)
        if self.training:
            self._append(gathered(student), gathered(teacher))
        return by_image

    def _append(self, student: torch.Tensor, teacher: torch.Tensor) -> None:
        places = (self.seen + torch.arange(len(student), device=student.device)) % self.size
        last = slice(-self.size, None)  # of a batch that is larger than the queue
        self.teacher[places[last]], self.student[places[last]] = teacher[last], student[last]
        self.seen += len(student)


def divergence(wanted: torch.Tensor, found: torch.Tensor, left_out: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL(softmax of a row of `wanted` || that of `found`), [..., n] both -> [...]; columns `left_out` do not count."""
    p, q = (
        functional.log_softmax((similarities / temperature).masked_fill(left_out, LEFT_OUT), dim=-1)
        for similarities in (wanted, found)
    )
    return (p.exp() * (p - q)).sum(dim=-1)


def pooled(unit: torch.Tensor) -> torch.Tensor:
    """The direction of the mean of an image's patches at length 1: [batch, patches, dim] -> [batch, dim]."""
    return functional.normalize(unit.mean(dim=1), dim=-1, eps=1e-6)


def teacher_directions(patches: torch.Tensor) -> torch.Tensor:
    """Patches [batch, patches, dim] at length 1, in float32, each whatever the lengths of the others."""
    return functional.normalize(patches.float(), dim=-1)


REFINER = Relational
