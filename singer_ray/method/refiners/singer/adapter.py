"""SiNGER: a low-rank adapter guided by the next block's left-nullspace (arXiv 2509.20986, section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from singer_ray.errors import UserError
from singer_ray.method.defects import defect_directions
from singer_ray.method.losses import Terms, information_loss, outlier_loss
from singer_ray.method.nullspace import (
    jacobian_matrix,
    linearized_block,
    mlp_matrix,
    null_directions,
    nullity,
    principal_directions,
    random_directions,
)
from singer_ray.method.refiners.base import Refiner, Replay
from singer_ray.method.spectral import ArtifactDirections, artifact_directions, in_words

if TYPE_CHECKING:
    from singer_ray.config import MethodConfig
    from singer_ray.vision.tapped import Features, TappedViT

_MATRICES = {"mlp": mlp_matrix, "attention_mlp": linearized_block}
"""Linearisations that ask a block's weights alone."""
OBSERVED_IMAGES = 32
"""Images that the linearisation `jacobian` looks at."""


class SingerAdapter(nn.Module):
    """Delta(F) = (F Phi_down) Phi_up; Phi_down [dim, rank], Phi_up [rank, dim]."""

    def __init__(self, down: torch.Tensor, up: torch.Tensor) -> None:
        super().__init__()
        self.phi_down, self.phi_up = nn.Parameter(down.clone()), nn.Parameter(up.clone())

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return (patches @ self.phi_down) @ self.phi_up


class SpectralAdapter(SingerAdapter):
    """Delta(F) = ((F - centre) Phi_down) Phi_up, in the closed form Phi_down = U and Phi_up = -U^T.

    U are the directions of the artifacts, at most `rank`; further columns are 0, and so are their gradients. Until
    `take` is called, and where there are no such directions, Delta is 0.
    """

    def __init__(self, width: int, rank: int) -> None:
        super().__init__(torch.zeros(width, rank), torch.zeros(rank, width))
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("found", torch.tensor(0))
        self.centre: torch.Tensor
        self.found: torch.Tensor
        self.number = 0
        """How many directions U has; `found` says so in the state."""
        self.register_load_state_dict_post_hook(  # type: ignore[no-untyped-call]
            lambda adapter, _: setattr(adapter, "number", int(adapter.found))
        )

    @torch.no_grad()
    def take(self, found: ArtifactDirections) -> None:
        """Starts in the closed form."""
        self.number = found.number
        self.found.fill_(found.number)
        self.centre.copy_(found.centre)
        self.phi_down.zero_()[:, : self.number] = found.basis
        self.phi_up.zero_()[: self.number] = -found.basis.mT

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return ((patches - self.centre) @ self.phi_down[:, : self.number]) @ self.phi_up[: self.number]


class Singer(Refiner):
    """F^_l = F_l + Delta_l(F_l) on patch tokens (equation 3), fitted by L_outlier and L_info (equations 6 to 8).

    Phi_down starts in the directions that `method.linearization` picks, Phi_up at zero, so that the fit starts from
    the features as they are. The adapter is fitted at full strength; `strength` scales what the student learns,
    F_l + strength * Delta_l. With `method.gate` above 0 only patches longer than that many medians are changed; with
    `method.radial` the student learns patches that all have the layer's median length.
    """

    def __init__(self, teacher: TappedViT, layers: Sequence[int], method: MethodConfig) -> None:
        super().__init__(teacher, layers, method)
        self.rank, self.strength, self.gamma = method.rank, method.strength, method.outlier_quantile
        self.gate, self.radial = method.gate, method.radial and not self.joint
        self.weights = {"outlier": method.loss.outlier, "info": method.loss.info}
        self.depth, self.probes = teacher.depth, method.jacobian_probes
        self.linearization = method.start_from
        self._notes: list[str] = []
        self.freezes = method.freeze and not self.joint
        self.adapters = nn.ModuleDict({str(n): self._adapter(teacher, n, method) for n in self.layers})
        if not method.adapter_learns or not any(self.weights.values()):
            self.requires_grad_(False)

    @classmethod
    def check(cls, teacher: TappedViT, layers: Sequence[int], method: MethodConfig) -> None:
        if method.rank > teacher.width:
            raise UserError(
                f"method.rank {method.rank} is above the teacher's width {teacher.width}: there are only "
                f"{teacher.width} directions. Allowed: 1 to {teacher.width}; 8 to 64 is usual."
            )
        kind = method.start_from
        try:
            if kind == "defect":
                defect_directions(teacher.blocks[: layers[-1] + 1], method.rank)
            elif kind in _MATRICES:
                _MATRICES[kind](teacher.blocks[min(layers[-1] + 1, teacher.depth - 1)])
        except ValueError as error:
            raise UserError(
                f"method.linearization {kind} cannot start from this teacher: its {error}. Choose jacobian, random or "
                "pca."
            ) from error

    @classmethod
    def extra_layers(cls, layers: Sequence[int], depth: int) -> tuple[int, ...]:
        """The next block's own output is the reference of the information loss."""
        return tuple(n + 1 for n in layers if n + 1 < depth)

    @classmethod
    def replays(cls, method: MethodConfig) -> bool:
        return method.adapter_learns or method.start_from == "jacobian"

    @property
    def learns(self) -> bool:
        return any(p.requires_grad for p in self.parameters())

    def settle(self) -> None:
        if self.freezes:
            self.requires_grad_(False)

    def next_block(self, layer: int) -> int:
        """The block that reads F_l. The last layer has none; its own block stands in, as in the official code."""
        return min(layer + 1, self.depth - 1)

    def _adapter(self, teacher: TappedViT, layer: int, method: MethodConfig) -> SingerAdapter:
        if self.linearization == "spectral":
            return SpectralAdapter(self.width, self.rank)
        if self.linearization == "defect":
            directions = defect_directions(teacher.blocks[: layer + 1], self.rank)
            return SingerAdapter(directions, torch.zeros(self.rank, self.width))
        return SingerAdapter(*self.start(teacher.blocks[self.next_block(layer)], layer, method))

    def start(self, block: nn.Module, layer: int, method: MethodConfig) -> tuple[torch.Tensor, torch.Tensor]:
        """Phi_down and Phi_up at the start, from the weights of `block`; `observe` may set Phi_down anew."""
        matrix = _MATRICES.get(self.linearization)
        if matrix is None:
            down = torch.zeros(self.width, self.rank)
        else:
            read = matrix(block)
            down = null_directions(read, self.rank)
            self._note_null_space(layer, nullity(read))
        return down, torch.zeros(self.rank, self.width)

    def observe(self, features: Features, replay: Replay, seed: int) -> None:
        for layer in self.layers:
            adapter = self.adapters[str(layer)]
            if isinstance(adapter, SpectralAdapter):
                found = artifact_directions(features.tokens[layer][:, self.prefix :], self.rank)
                adapter.take(found)
                self._notes.append(f"layer {layer}: {in_words(found, self.rank)}")
        if self.linearization not in ("random", "pca", "jacobian"):
            return
        generator = torch.Generator().manual_seed(seed)
        for layer in self.layers:
            adapter = self.adapters[str(layer)]
            assert isinstance(adapter, SingerAdapter)
            with torch.no_grad():
                adapter.phi_down.copy_(self._observed_directions(layer, features, replay, generator))

    def notes(self) -> list[str]:
        return list(self._notes)

    def forward(self, layer: int, tokens: torch.Tensor) -> torch.Tensor:
        prefix, patches = tokens[:, : self.prefix], tokens[:, self.prefix :]
        delta = self.adapters[str(layer)](patches)
        if self.gate:
            norms = patches.detach().float().norm(dim=-1, keepdim=True)
            delta = delta * (norms > self.gate * norms.median(dim=1, keepdim=True).values)
        return torch.cat([prefix, patches + delta], dim=1)

    def own_losses(self, refined: Mapping[int, torch.Tensor], features: Features, replay: Replay) -> Terms:
        outlier, info = [], []
        for layer in self.layers:
            hat = refined[layer]
            outlier.append(outlier_loss(hat[:, self.prefix :], self.gamma, self.median_norms[layer]))
            if layer + 1 < self.depth:
                after, reference = replay(layer + 1, hat, features), features.tokens[layer + 1]
            else:
                after, reference = hat, features.tokens[layer]
            info.append(information_loss(after[:, self.prefix :], reference[:, self.prefix :]))
        return {
            "outlier": (self.weights["outlier"], torch.stack(outlier).sum()),
            "info": (self.weights["info"], torch.stack(info).sum()),
        }

    def target(self, layer: int, original: torch.Tensor, refined: torch.Tensor) -> torch.Tensor:
        target = torch.lerp(original, refined, self.strength)
        adapter = self.adapters[str(layer)]
        if not self.radial or (isinstance(adapter, SpectralAdapter) and not adapter.number):
            return target
        patches = at_length(target[:, self.prefix :], self.median_norms[layer])
        return torch.cat([target[:, : self.prefix], patches], dim=1)

    def _observed_directions(
        self, layer: int, features: Features, replay: Replay, generator: torch.Generator
    ) -> torch.Tensor:
        if self.linearization == "random":
            return random_directions(self.width, self.rank, generator)
        if self.linearization == "pca":
            return principal_directions(features.tokens[layer][:, self.prefix :], self.rank)
        few = features.first(OBSERVED_IMAGES)
        number = self.next_block(layer)
        matrix = jacobian_matrix(
            lambda tokens: replay(number, tokens, few), few.tokens[layer], self.prefix, self.probes, generator
        )
        self._note_null_space(layer, nullity(matrix))
        return null_directions(matrix, self.rank)

    def _note_null_space(self, layer: int, unread: int) -> None:
        if self.rank > unread:
            self._notes.append(
                f"layer {layer}: block {self.next_block(layer)} leaves {unread} of {self.width} directions unread; "
                f"the {self.rank - unread} others of rank {self.rank} are those that it reads least"
            )


class PaperSinger(Singer):
    """As the paper writes it: Phi_down = N~ and Phi_up = N~^T, trained jointly with the student (section 3.3)."""

    joint = True  # and so without the radial part, which the paper does not have

    def start(self, block: nn.Module, layer: int, method: MethodConfig) -> tuple[torch.Tensor, torch.Tensor]:
        down, _ = super().start(block, layer, method)
        return down, down.T

    def observe(self, features: Features, replay: Replay, seed: int) -> None:
        super().observe(features, replay, seed)
        for adapter in self.adapters.values():
            assert isinstance(adapter, SingerAdapter)
            with torch.no_grad():
                adapter.phi_up.copy_(adapter.phi_down.T)


def at_length(patches: torch.Tensor, length: float) -> torch.Tensor:
    """Patches [batch, patches, dim] with their directions, all of one `length`; a zero patch stays zero."""
    norms = patches.float().norm(dim=-1, keepdim=True)
    floor = (1e-4 * norms.detach().mean()).clamp_min(1e-12)
    return (patches.float() * (length / torch.maximum(norms, floor))).to(patches.dtype)
