"""Test-time registers: a token more, which takes up what would become an artifact (arXiv 2506.08010)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from singer_ray.errors import UserError, printable
from singer_ray.method.artifacts import max_median_ratio, outlier_mask, patch_norms
from singer_ray.method.wrappers.base import TeacherWrapper
from singer_ray.method.wrappers.registers.moving import hidden_layer, moving, written_lengths
from singer_ray.vision.tapped import Features, TappedViT, evaluating

if TYPE_CHECKING:
    from singer_ray.config import MethodConfig
    from singer_ray.method.wrappers.registers.settings import RegistersConfig

CHUNK, TRIED = 32, 64
"""Images of a pass while neurons are looked for, and images that the number of neurons is tried on."""
STANDS_OUT = 0.9
"""Share of the outliers that stand out behind the block that makes them."""
WORTHWHILE = 0.9
"""Neurons that leave more than this part of what the largest norm has above the median are not those of artifacts."""
TOLERANCE = 0.1
"""A smaller number of neurons is taken when it does all but this part of what the best number does."""
COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Numbers of neurons that are tried."""


class Registers(TeacherWrapper):
    """Moves the few hidden units that make artifacts from the patches to a token of its own.

    `observe` finds them: of the MLPs up to the block that makes the outliers, the hidden units that write most at
    outlier tokens (see `_strongest`); and of those as many as bring the largest norms down, tried on calibration
    images. In a pass a zero token is put before the patches once positions have been added. Each of the units then has
    there its activation of largest magnitude among the patches of the image, and 0 at the patches. The token is taken
    off again from what is read, and kept in `Features.aside` for `replay`. Without such units nothing is changed.
    """

    def __init__(self, teacher: TappedViT, method: MethodConfig, *, size: int, seed: int) -> None:
        super().__init__(teacher, method, size=size, seed=seed)
        settings: RegistersConfig = method.own("registers")
        self.ratio, self.most, self.last_block = settings.ratio, settings.neurons, settings.last_block
        self.neurons: dict[int, torch.Tensor] = {}
        self._notes: list[str] = []

    @classmethod
    def check(cls, teacher: TappedViT, method: MethodConfig, size: int) -> None:
        settings: RegistersConfig = method.own("registers")
        last = settings.last_block
        if last is not None and last >= teacher.depth:
            raise UserError(
                f"method.registers.last_block is {last}, but {teacher.name} has blocks 0 to {teacher.depth - 1}. "
                "Choose among those."
            )
        for number, block in enumerate(teacher.blocks):
            if hidden_layer(teacher, number) is None:
                raise UserError(
                    f"method.wrapper registers reads hidden units at blocks[{number}].mlp.fc2, a linear layer, which "
                    f"{teacher.name} ({type(block).__name__}) does not have. Use --method.wrapper shift_average "
                    "or none."
                )
        device = next(iter(teacher.parameters())).device
        unit = {0: torch.zeros(1, dtype=torch.long, device=device)}
        try:
            with evaluating(teacher), moving(teacher, unit, add=True):
                TappedViT.forward(teacher, torch.zeros(1, 3, size, size, device=device))
        except (RuntimeError, ValueError, TypeError) as error:
            raise UserError(
                f"method.wrapper registers cannot give {teacher.name} a token more: its blocks take no other number "
                f"than they were made for ({printable(str(error).splitlines()[0], 100)}). Use --method.wrapper "
                "shift_average or none."
            ) from error

    @property
    def plain(self) -> TappedViT:
        return TappedViT(self.model, self.layers, name=self.name)

    @property
    def key(self) -> Hashable:
        return tuple((block, *units.tolist()) for block, units in sorted(self.neurons.items()))

    def forward(self, images: torch.Tensor) -> Features:
        if not self.neurons:
            return super().forward(images)
        with moving(self, self.neurons, add=True):
            features = super().forward(images)
        for n, tokens in features.tokens.items():
            features.tokens[n], features.aside[n] = self._split(tokens)
        return features

    def replay(self, layer: int, tokens: torch.Tensor, features: Features) -> torch.Tensor:
        if not features.aside:
            return super().replay(layer, tokens, features)
        # The token as it left the block before; the last block, run again on its own output, has its own.
        aside = features.aside[layer - 1 if layer - 1 in features.aside else layer].to(tokens.dtype)
        joined = torch.cat([tokens[:, : self.prefix], aside, tokens[:, self.prefix :]], dim=1)
        with moving(self, self.neurons, add=False):
            return self._split(super().replay(layer, joined, features))[0]

    def observe(self, images: torch.Tensor) -> None:
        self.neurons, self._notes = {}, []
        chunks = images.split(CHUNK)
        outliers, last = self._outliers(chunks)
        if last is None:
            self._notes.append(
                f"registers: no patch is above {self.ratio:g} x the median norm of its image, so no neurons are moved "
                "and features stay as they are"
            )
            return
        strongest = self._strongest(chunks, outliers, last)
        tried = images[:TRIED].split(CHUNK)
        before, left = self._largest(tried), {}
        counts = [n for n in COUNTS if n < len(strongest)] + [len(strongest)]
        for count in counts:
            self._choose(strongest[:count])
            left[count] = self._largest(tried)
        best = min(left.values())
        if best - 1 > WORTHWHILE * (before - 1):
            self.neurons = {}
            self._notes.append(
                f"registers: 0 neurons found: the {len(strongest)} that write most at outliers in blocks 0 to {last} "
                f"leave the largest norm at {best:.1f} medians of {before:.1f}; features stay as they are"
            )
            return
        enough = next(n for n, ratio in left.items() if ratio <= best + TOLERANCE * (before - best))
        self._choose(strongest[:enough])
        where = ", ".join(f"{len(units)} in block {block}" for block, units in sorted(self.neurons.items()))
        what = f"{enough} neuron{'s' * (enough > 1)} ({where})"
        self._notes.append(
            f"registers: moves {what} to a token of their own; largest over median patch norm {before:.1f} -> "
            f"{left[enough]:.1f}"
        )

    def notes(self) -> list[str]:
        return list(self._notes)

    def found(self) -> dict[str, torch.Tensor]:
        pairs = [(block, unit) for block, units in self.neurons.items() for unit in units.tolist()]
        return {"neurons": torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)}

    def take(self, found: Mapping[str, torch.Tensor]) -> None:
        self._choose([(block, unit) for block, unit in found["neurons"].tolist()])

    def _choose(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Takes hidden units, (block, unit), as those that are moved."""
        device = next(iter(self.model.parameters())).device
        self.neurons = {
            block: torch.tensor(sorted(unit for b, unit in pairs if b == block), device=device)
            for block in sorted({block for block, _ in pairs})
        }

    def _outliers(self, chunks: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], int | None]:
        """The outlier patches of each chunk at the read layer that has most, and the block behind which they stand out.

        bool [batch, patches] each. None for the block where there are none.
        """
        network = TappedViT(self.model, range(self.layers[-1] + 1), name=self.name)
        by_layer: dict[int, list[torch.Tensor]] = {n: [] for n in network.layers}
        for chunk in chunks:
            for n, tokens in network(chunk).tokens.items():
                by_layer[n].append(outlier_mask(patch_norms(tokens[:, self.prefix :]), self.ratio))
        numbers = {n: sum(int(mask.sum()) for mask in by_layer[n]) for n in self.layers}
        chosen = max(numbers, key=lambda n: numbers[n])
        outliers = by_layer[chosen]
        if not numbers[chosen]:
            return outliers, None
        if self.last_block is not None:
            return outliers, min(self.last_block, chosen)
        for n in range(chosen):
            already = sum(int((mask & early).sum()) for mask, early in zip(outliers, by_layer[n]))
            if already >= STANDS_OUT * numbers[chosen]:
                return outliers, n
        return outliers, chosen

    def _strongest(
        self, chunks: Sequence[torch.Tensor], outliers: Sequence[torch.Tensor], last: int
    ) -> list[tuple[int, int]]:
        """(block, unit) of the hidden units up to block `last` that write most at outliers, the most first.

        By how much larger their mean |activation| is at outliers than at other patches, times the length of what they
        write. Units that are as active everywhere make no outliers, however large their activation.
        """
        sums = {n: torch.zeros(2, hidden_layer(self, n).in_features, dtype=torch.double) for n in range(last + 1)}
        network = TappedViT(self.model, [last], name=self.name)
        for chunk, mask in zip(chunks, outliers):

            def add(number: int, mask: torch.Tensor = mask) -> Callable[..., None]:
                def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
                    size = inputs[0][:, self.prefix :].float().abs()
                    sums[number] += torch.stack([size[mask].sum(dim=0), size[~mask].sum(dim=0)]).double().cpu()

                return hook

            handles = [hidden_layer(self, n).register_forward_pre_hook(add(n)) for n in range(last + 1)]
            try:
                network(chunk)
            finally:
                for handle in handles:
                    handle.remove()
        inside = sum(int(mask.sum()) for mask in outliers)
        outside = sum(mask.numel() for mask in outliers) - inside
        listed = []
        for n, (at_outliers, elsewhere) in sums.items():
            more = (at_outliers / inside - elsewhere / outside) * written_lengths(self, n).double().cpu()
            listed += [(value, n, unit) for unit, value in enumerate(more.tolist())]
        return [(n, unit) for _, n, unit in sorted(listed, reverse=True)[: self.most]]

    def _largest(self, chunks: Sequence[torch.Tensor]) -> float:
        """Largest over median patch norm, in the mean over images and read layers, with the neurons as chosen."""
        parts = []
        for chunk in chunks:
            tokens = self(chunk).tokens.values()
            parts.append(torch.stack([max_median_ratio(patch_norms(each[:, self.prefix :])) for each in tokens]))
        return float(torch.cat(parts, dim=1).mean())

    def _split(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The image's own tokens, and the one that was added."""
        place = self.prefix
        own = torch.cat([tokens[:, :place], tokens[:, place + 1 :]], dim=1)
        return own, tokens[:, place : place + 1]


WRAPPER = Registers
