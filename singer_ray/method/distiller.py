"""One distillation step's forward part: features of the teacher and images in, losses out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from singer_ray.method.losses import token_distillation_loss
from singer_ray.method.refiners.base import Refiner, Replay
from singer_ray.vision.tapped import Features, TappedViT


class Distiller(nn.Module):
    """Student, projections P_l and refiner: everything that learns, and nothing of the teacher.

    Args:
        student: tapped at `student_layers`.
        teacher: read for its shape only.
        layers: the distilled teacher layers D, in the order of `student_layers`.
        grids: patch rows and columns of teacher and student for the input size in use.
        covered: height and width in pixels that each grid covers (see `TappedViT.covered`); by default the same.
    """

    def __init__(
        self,
        student: TappedViT,
        student_layers: Sequence[int],
        teacher: TappedViT,
        layers: Sequence[int],
        refiner: Refiner,
        grids: tuple[tuple[int, int], tuple[int, int]],
        covered: tuple[tuple[int, int], tuple[int, int]] | None = None,
        *,
        kd_weight: float = 1.0,
        detach: bool = True,
    ) -> None:
        super().__init__()
        self.student, self.refiner = student, refiner
        self.layers, self.student_layers = tuple(layers), tuple(student_layers)
        self.teacher_prefix, self.teacher_grid, self.student_grid = teacher.prefix, *grids
        matrices = _resamplers(grids, covered) or (None, None)
        self.by_rows: torch.Tensor | None
        self.by_columns: torch.Tensor | None
        self.register_buffer("by_rows", matrices[0], persistent=False)
        self.register_buffer("by_columns", matrices[1], persistent=False)
        self.class_token = teacher.has_class_token and student.has_class_token
        self.kd_weight, self.detach = kd_weight, detach
        self.projections = nn.ModuleDict({str(n): nn.Linear(student.width, teacher.width) for n in self.layers})

    def forward(self, images: torch.Tensor, features: Features, replay: Replay) -> dict[str, torch.Tensor]:
        """Losses of one batch; `loss` is the weighted sum that is minimised, L = L_KD + sum of the refiner's own."""
        refined, losses = self.refine(features, replay)
        student = self.student(images).tokens
        kd = [
            self._distill(n, student[m], features.tokens[n], refined[n])
            for n, m in zip(self.layers, self.student_layers)
        ]
        losses["kd"] = torch.stack(kd).mean() if self.refiner.averages_layers else torch.stack(kd).sum()
        losses["loss"] = losses["loss"] + self.kd_weight * losses["kd"]
        return losses

    def refine(self, features: Features, replay: Replay) -> tuple[dict[int, torch.Tensor], dict[str, torch.Tensor]]:
        """F^_l for every l in D, and the refiner's own losses with their weighted sum under `loss`."""
        refined = {n: self.refiner(n, features.tokens[n]) for n in self.layers}
        own = self.refiner.own_losses(refined, features, replay) if self.refiner.learns else {}
        losses = {name: loss for name, (_, loss) in own.items()}
        losses["loss"] = sum(
            (weight * loss for weight, loss in own.values()), next(iter(refined.values())).new_zeros(())
        )
        return refined, losses

    def shown(self, layer: int, tokens: torch.Tensor) -> torch.Tensor:
        """What the student is shown in place of F_l, unscaled: [batch, prefix + patches, dim]."""
        return self.refiner.target(layer, tokens, self.refiner(layer, tokens))

    def token_losses(self, images: torch.Tensor, features: Features) -> dict[int, torch.Tensor]:
        """Mean squared error by layer and token, [batch, tokens], of what the student is shown.

        The sum over layers of the mean over tokens is `kd` of `forward`, where the refiner keeps the plain L_KD.
        The last rows * columns tokens are the patches on the teacher's grid; a class token, where both have one, comes
        first.
        """
        student = self.student(images).tokens
        return {
            n: token_distillation_loss(
                *self._matched(n, student[m], features.tokens[n], self.refiner(n, features.tokens[n]))
            )
            for n, m in zip(self.layers, self.student_layers)
        }

    def projected(self, layer: int, student: torch.Tensor) -> torch.Tensor:
        """Student patches in the teacher's space and unit at `layer`, P_l(F^S_l) / scale.

        [batch, prefix + patches, student width] -> [batch, patches, teacher width], on the student's own grid.
        """
        patches: torch.Tensor = self.projections[str(layer)](student[:, self.student.prefix :])
        return patches / self.refiner.target_scale(layer)

    def _distill(
        self, layer: int, student: torch.Tensor, original: torch.Tensor, refined: torch.Tensor
    ) -> torch.Tensor:
        projected, target = self._matched(layer, student, original, refined)
        return self.refiner.distill(layer, projected, target, self.teacher_grid)

    def _matched(
        self, layer: int, student: torch.Tensor, original: torch.Tensor, refined: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Projected student tokens and their scaled targets, [batch, tokens, dim] both, in the same order."""
        target = self.refiner.target(layer, original, refined) * self.refiner.target_scale(layer)
        if self.detach:
            target = target.detach()
        projected = self.projections[str(layer)](student)
        patches = self._to_teacher_grid(projected[:, self.student.prefix :])
        target_patches = target[:, self.teacher_prefix :]
        if not self.class_token:
            return patches, target_patches
        return torch.cat([projected[:, :1], patches], dim=1), torch.cat([target[:, :1], target_patches], dim=1)

    def _to_teacher_grid(self, patches: torch.Tensor) -> torch.Tensor:
        if self.by_rows is not None and self.by_columns is not None:
            plane = patches.unflatten(1, self.student_grid)
            rows, columns = self.by_rows.to(patches.dtype), self.by_columns.to(patches.dtype)
            return torch.einsum("ir,brcd,jc->bijd", rows, plane, columns).flatten(1, 2)
        if self.student_grid == self.teacher_grid:
            return patches
        plane = patches.mT.unflatten(2, self.student_grid)
        resized = functional.interpolate(plane, self.teacher_grid, mode="bilinear", align_corners=False)
        return resized.flatten(2).mT


def _resamplers(
    grids: tuple[tuple[int, int], tuple[int, int]], covered: tuple[tuple[int, int], tuple[int, int]] | None
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Matrices that bring rows and columns of the student's patches to the teacher's; None where both cover the same.

    [teacher rows, student rows] and [teacher columns, student columns].
    """
    if covered is None or covered[0] == covered[1]:
        return None
    teacher, student = (
        [pixels / count for pixels, count in zip(area, grid)] for area, grid in zip(covered, grids)
    )  # patch heights and widths
    return (
        resampler(grids[0][0], teacher[0], grids[1][0], student[0]),
        resampler(grids[0][1], teacher[1], grids[1][1], student[1]),
    )


def resampler(count: int, step: float, from_count: int, from_step: float) -> torch.Tensor:
    """Linear interpolation at the centres of `count` patches, each `step` pixels, between those of `from_count`.

    Both rows of patches start at the same pixel; beyond the outermost centre its value holds. float32 [count, from].
    """
    place = ((torch.arange(count, dtype=torch.float64) + 0.5) * step / from_step - 0.5).clamp(0, from_count - 1)
    lower = place.floor().long()
    upper = (lower + 1).clamp(max=from_count - 1)
    weight = place - lower
    matrix = torch.zeros(count, from_count, dtype=torch.float64)
    matrix[torch.arange(count), lower] += 1 - weight
    matrix[torch.arange(count), upper] += weight
    return matrix.float()
