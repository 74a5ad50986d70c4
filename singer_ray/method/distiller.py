"""One distillation step on one screen, `Distiller.forward`: the teacher's features and images in, losses out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from singer_ray.method.losses import information_loss, weighted_sum
from singer_ray.method.projections import OrthogonalLinear, make_projection
from singer_ray.method.refiners.base import Refiner, Replay
from singer_ray.method.targets import TARGETS
from singer_ray.vision.tapped import Features, TappedViT


class Distiller(nn.Module):
    """Student, projections P_l and refiner: everything that learns, and nothing of the teacher.

    Args:
        student: tapped at `student_layers`.
        teacher: read for its shape only.
        layers: the distilled teacher layers D, in the order of `student_layers`.
        grids: patch rows and columns of teacher and student for the input size in use.
        covered: height and width in pixels that each grid covers (see `TappedViT.covered`); by default the same.
        detach: keep the gradient of L_KD away from the refiner.
        target, momentum: `method.target` and `method.standardize.momentum`.
        projector: what P_l is, see `make_projection`.
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
        target: str = "plain",
        momentum: float = 0.0,
        gram_weight: float = 0.0,
        projector: str = "linear",
    ) -> None:
        super().__init__()
        self.student, self.refiner = student, refiner
        self.layers, self.student_layers = tuple(layers), tuple(student_layers)
        self.teacher_prefix, self.teacher_grid, self.student_grid = teacher.prefix, *grids
        refiner.lay_out(self.teacher_grid)
        matrices = _resamplers(grids, covered) or (None, None)
        self.by_rows: torch.Tensor | None
        self.by_columns: torch.Tensor | None
        self.register_buffer("by_rows", matrices[0], persistent=False)
        self.register_buffer("by_columns", matrices[1], persistent=False)
        self.class_token = teacher.has_class_token and student.has_class_token
        self.teacher_width = teacher.width
        self.scales = dict.fromkeys(self.layers, self.teacher_width**0.5 if refiner.scales_targets else 1.0)
        self.kd_weight, self.gram_weight, self.detach = kd_weight, gram_weight, detach
        self.targets = TARGETS[target](self.layers, self.teacher_width, int(self.class_token), momentum)
        refiner.meet(student)
        self.projections = nn.ModuleDict(
            {str(n): make_projection(projector, student.width, self.teacher_width) for n in self.layers}
        )

    def forward(self, images: torch.Tensor, features: Features, replay: Replay) -> dict[str, torch.Tensor]:
        """One step: the losses of a batch by name, and under `loss` their weighted sum, which is minimised.

        Args:
            images: normalised, [batch, 3, size, size].
            features: F_l of the frozen teacher on these images, at D and the layers that the refiner asks for.
            replay: runs one of the teacher's blocks on refined tokens.
        """
        refiner = self.refiner
        # Teacher: F^_l for every l in D (equation 3), and the terms that fit the refiner: L_outlier and L_info
        # (equations 6 to 8).
        refined, own = refiner.refine(features, replay)
        # Student: F^S_m at the layer m that learns from l.
        student = self.student(images).tokens
        # L_KD: P_l(F^S_m) against its target at each l, token by token; and the Gram matrices of both, where weighed.
        kd, gram = [], []
        for n, m in zip(self.layers, self.student_layers):
            target = self._compared(n, refiner.target(n, features.tokens[n], refined[n]))
            kd.append(refiner.distill(n, self._tokens(n, student[m]), target, self.teacher_grid))
            if self.gram_weight:
                gram.append(information_loss(self._patches(student[m]), target[:, int(self.class_token) :]))
        over_layers = torch.mean if refiner.averages_layers else torch.sum
        terms = {**own, "kd": (self.kd_weight, over_layers(torch.stack(kd)))}
        if gram:
            terms["gram"] = (self.gram_weight, over_layers(torch.stack(gram)))
        # L = L_KD + lambda_outlier L_outlier + lambda_info L_info (equation 9).
        named = {**own, "loss": (1.0, weighted_sum(terms)), **terms}
        return {name: term for name, (_, term) in named.items()}

    def calibrate(self, median_norms: Mapping[int, float]) -> None:
        """Takes the teacher's median patch norm at each distilled layer, by which targets are scaled."""
        self.refiner.calibrate(median_norms)
        if self.refiner.scales_targets:
            self.scales = {n: float(self.teacher_width**0.5 / median_norms[n]) for n in self.layers}

    def retract(self) -> None:
        """Brings orthogonal projections, which the optimiser has moved, back to orthonormal columns."""
        for projection in self.projections.values():
            if isinstance(projection, OrthogonalLinear):
                projection.retract()

    def target(self, layer: int, tokens: torch.Tensor) -> torch.Tensor:
        """What the student learns in place of F_l, unscaled: [batch, prefix + patches, dim]."""
        return self.refiner.target(layer, tokens, self.refiner(layer, tokens))

    def measure_targets(self, features: Features) -> None:
        """Shows `method.target` what it starts from: F_l of the calibration images, at D."""
        with torch.no_grad():
            for n in self.layers:
                self.targets.measure(n, self._scaled(n, self.target(n, features.tokens[n])))

    def token_losses(self, images: torch.Tensor, features: Features) -> dict[int, torch.Tensor]:
        """The distance between student and target by layer and token, [batch, tokens].

        Summed over layers, its mean over tokens is `kd` of `forward` for refiners that keep the plain L_KD. The last
        rows * columns tokens are the patches on the teacher's grid; a class token, where both networks have one and it
        is compared, comes first.
        """
        student = self.student(images).tokens
        return {
            n: self.refiner.distill_by_token(
                n, self._tokens(n, student[m]), self._compared(n, self.target(n, features.tokens[n])), self.teacher_grid
            )
            for n, m in zip(self.layers, self.student_layers)
        }

    def projected(self, layer: int, student: torch.Tensor) -> torch.Tensor:
        """Student patches in the teacher's space and units at `layer`, P_l(F^S_l) / scale.

        [batch, prefix + patches, student width] -> [batch, patches, teacher width], on the student's own grid.
        """
        patches: torch.Tensor = self.projections[str(layer)](student[:, self.student.prefix :])
        return self.targets.undone(layer, patches) / self.scales[layer]

    def _compared(self, layer: int, target: torch.Tensor) -> torch.Tensor:
        """An unscaled target as the loss compares it, by `method.target`: [batch, class token? + patches, dim]."""
        compared: torch.Tensor = self.targets(layer, self._scaled(layer, target))
        return compared

    def _scaled(self, layer: int, target: torch.Tensor) -> torch.Tensor:
        """A target's class token and patches, scaled, without gradient if `detach`.

        Without the scale, sqrt(dim) / median norm, layers of longer features would weigh more.
        """
        target = target * self.scales[layer]
        if self.detach:
            target = target.detach()
        patches = target[:, self.teacher_prefix :]
        return torch.cat([target[:, :1], patches], dim=1) if self.class_token else patches

    def _tokens(self, layer: int, student: torch.Tensor) -> torch.Tensor:
        """Student tokens as the refiner compares them, on the teacher's grid: [batch, class token? + patches, dim]."""
        tokens = self.projections[str(layer)](student) if self.refiner.projects else student
        patches = self._patches(tokens)
        return torch.cat([tokens[:, :1], patches], dim=1) if self.class_token else patches

    def _patches(self, student: torch.Tensor) -> torch.Tensor:
        """The patches among student tokens, on the teacher's grid."""
        return self._resampled(student[:, self.student.prefix :])

    def _resampled(self, patches: torch.Tensor) -> torch.Tensor:
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
