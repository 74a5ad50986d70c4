"""The mean of features over shifted views: the teacher of PH-Reg (arXiv 2505.21501)."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional

from singer_ray.errors import UserError
from singer_ray.method.wrappers.base import TeacherWrapper
from singer_ray.vision.tapped import Features, TappedViT

if TYPE_CHECKING:
    from singer_ray.config import MethodConfig
    from singer_ray.method.wrappers.shift_average.settings import ShiftAverageConfig


class View(NamedTuple):
    """How an image is shown: mirrored or not, then moved by whole patches."""

    down: int
    right: int
    mirrored: bool


class ShiftAverage(TeacherWrapper):
    """Shows the network an image as it is and shifted by whole patches, and gives the mean of the features.

    Features are brought back to the patch that they belong to; the mean of a patch is over the views that show it.
    What a shift leaves empty is filled by reflection, and not read. Tokens before the patches are averaged over all
    views. An artifact that stands where it stands because of the network, not of the image, falls on another patch in
    each view. The views are the same for all images, drawn from the seed.

    `replay` runs a block once, on the averaged features, with the other arguments of the plain view.
    """

    replays = False

    def __init__(self, teacher: TappedViT, method: MethodConfig, *, size: int, seed: int) -> None:
        super().__init__(teacher, method, size=size, seed=seed)
        settings: ShiftAverageConfig = method.own("shift_average")
        self.views = draw_views(settings.views, settings.shift, seed, flips=settings.flips)
        step = teacher.patch_step()
        assert step is not None, "check() refuses others"
        self.step, self.rows_columns = step, teacher.grid(size)

    @classmethod
    def check(cls, teacher: TappedViT, method: MethodConfig, size: int) -> None:
        settings: ShiftAverageConfig = method.own("shift_average")
        if teacher.patch_step() is None:
            raise UserError(
                f"method.wrapper shift_average shifts images by whole patches, but {teacher.name} does not cut them "
                "side by side: its patch_embed.proj is no convolution whose stride is its kernel. Use --method.wrapper "
                "registers or none."
            )
        side = min(teacher.grid(size))
        if settings.shift >= side:
            raise UserError(
                f"method.shift_average.shift {settings.shift} would move all {side} patches of a side away. "
                f"Allowed: 1 to {side - 1}."
            )
        places = _places(settings.shift, flips=settings.flips)
        if settings.views > len(places):
            raise UserError(
                f"method.shift_average.views {settings.views} is above the {len(places)} views that shifts of up to "
                f"{settings.shift} patches give. Allowed: 2 to {len(places)}, or a larger method.shift_average.shift."
            )
        if settings.flips and teacher.covered(size) != (size, size):
            raise UserError(
                f"method.shift_average.flips needs patches that divide the image, but those of {teacher.name} do not "
                f"divide {size} pixels. Use --data.image_size {' or '.join(map(str, teacher.fitting_sizes(size)))}."
            )

    @property
    def plain(self) -> TappedViT:
        return TappedViT(self.model, self.layers, name=self.name)

    @property
    def key(self) -> Hashable:
        return tuple(self.views)

    def forward(self, images: torch.Tensor) -> Features:
        """The mean over all views; see the class."""
        first = super().forward(images)
        sums = {n: tokens.float() for n, tokens in first.tokens.items()}
        rows, columns = self.rows_columns
        counts = torch.ones(rows, columns, 1, device=images.device)
        for view in self.views[1:]:
            seen, there = _overlap(view, rows, columns)
            counts[seen] += 1
            for n, tokens in super().forward(self._shown(images, view)).tokens.items():
                sums[n] = self._added(sums[n], tokens.float(), view, (seen, there))
        by_patch = counts.flatten(0, 1)
        means = {}
        for n, total in sums.items():
            mean = [total[:, : self.prefix] / len(self.views), total[:, self.prefix :] / by_patch]
            means[n] = torch.cat(mean, dim=1).to(first.tokens[n].dtype)
        return Features(means, first.calls)

    def _added(
        self, total: torch.Tensor, tokens: torch.Tensor, view: View, places: tuple[Places, Places]
    ) -> torch.Tensor:
        seen, there = places
        plane = tokens[:, self.prefix :].unflatten(1, self.rows_columns)[:, there[0], there[1]]
        if view.mirrored:
            plane = plane.flip(2)
        patches = total[:, self.prefix :].unflatten(1, self.rows_columns).clone()
        patches[:, seen[0], seen[1]] += plane
        return torch.cat([total[:, : self.prefix] + tokens[:, : self.prefix], patches.flatten(1, 2)], dim=1)

    def _shown(self, images: torch.Tensor, view: View) -> torch.Tensor:
        """The images as `view` has them, of the same size."""
        height, width = images.shape[-2:]
        down, right = view.down * self.step[0], view.right * self.step[1]
        if view.mirrored:
            images = images.flip(-1)
        filled = functional.pad(images, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)), mode="reflect")
        top, left = max(-down, 0), max(-right, 0)
        return filled[..., top : top + height, left : left + width]


Places = tuple[slice, slice]
"""Rows and columns of the grid."""


def draw_views(count: int, shift: int, seed: int, *, flips: bool) -> list[View]:
    """The plain view and `count` - 1 others, each once, of up to `shift` patches along each side."""
    others = _places(shift, flips=flips)[1:]
    order = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed)).tolist()
    return [View(0, 0, mirrored=False), *(others[i] for i in order[: count - 1])]


def _places(shift: int, *, flips: bool) -> list[View]:
    """All views, the plain one first."""
    reach = sorted(range(-shift, shift + 1), key=abs)
    return [View(down, right, mirrored) for mirrored in (False, True)[: 1 + flips] for down in reach for right in reach]


def _overlap(view: View, rows: int, columns: int) -> tuple[Places, Places]:
    """Patches of the image that a view shows, and where the view has them, in its own order of columns."""
    seen_rows, there_rows = _moved(view.down, rows)
    seen_columns, there_columns = _moved(view.right, columns)
    if view.mirrored:  # columns of the mirrored image, counted from the other side
        seen_columns = slice(columns - seen_columns.stop, columns - seen_columns.start)
    return (seen_rows, seen_columns), (there_rows, there_columns)


def _moved(by: int, count: int) -> tuple[slice, slice]:
    return slice(max(0, -by), count - max(0, by)), slice(max(0, by), count - max(0, -by))


WRAPPER = ShiftAverage
