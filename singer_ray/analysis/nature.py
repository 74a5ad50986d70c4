"""What kind of artifacts a layer has: along how many directions, at which places, in which channel."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from singer_ray.method.spectral import NORMAL_SHARE, ArtifactDirections, artifact_directions

LOCKED = 0.5
"""From this `recurrence` on artifacts are tied to places: of two images they share a place more often than not."""
ONE_CHANNEL = 0.5
"""A direction with more of its square in one channel is that channel's. A random one has about 2 ln(dim) / dim."""


@dataclass(frozen=True)
class Nature:
    """The artifacts among the patch tokens of one layer, by `artifact_directions`."""

    number: int
    """Their directions; 0 where there are none."""
    token_share: float
    """Share of the patch tokens that have one."""
    energy_share: float
    """Share of the sum of squared norms that these tokens hold."""
    content_share: float
    """Share of the variance of the normal tokens that lies along the directions: what taking them out costs. Of the
    shorter tokens only, since others may have a small part of an artifact."""
    blind: bool
    """Most tokens are artifacts, so that which are normal cannot be told; then there are no directions."""
    recurrence: float | None
    """How much artifacts keep to places of the patch grid (see `recurrence`); None without artifacts."""
    channel: tuple[int, float] | None
    """The channel that has the largest share of one direction, and that share; None without directions."""
    common_channel: tuple[int, float]
    """The channel that holds most of the normal tokens' energy, and its share: shared by all tokens, no artifact."""

    @property
    def locked(self) -> bool:
        """Whether artifacts sit at the same places in most images."""
        return self.recurrence is not None and self.recurrence >= LOCKED

    @property
    def artifact_channel(self) -> int | None:
        """The massive channel that one of the directions is, if one is."""
        return self.channel[0] if self.channel and self.channel[1] > ONE_CHANNEL else None

    @property
    def massive_channel(self) -> int | None:
        """The channel that holds most of the energy of normal tokens, if one does."""
        return self.common_channel[0] if self.common_channel[1] > ONE_CHANNEL else None

    def metrics(self) -> dict[str, float]:
        """By name; shares 0 to 1."""
        found: dict[str, float] = {
            "spectral_directions": self.number,
            "spectral_token_share": self.token_share,
            "spectral_energy_share": self.energy_share,
            "spectral_content_share": self.content_share,
            "mostly_artifacts": int(self.blind),
            "common_channel_share": self.common_channel[1],
        }
        if self.recurrence is not None:
            found["place_recurrence"] = self.recurrence
        if self.channel:
            found["direction_channel_share"] = self.channel[1]
        return found


def nature_of(patches: torch.Tensor, outliers: torch.Tensor) -> Nature:
    """The nature of the artifacts among patch tokens [images, patches, dim].

    Where they have no direction, `outliers` (bool [images, patches], by their norms) says which tokens they are.
    """
    found = artifact_directions(patches, patches.shape[-1])
    tokens = patches.detach().double().flatten(0, 1)
    mask = _with_artifacts(tokens, found) if found.number else outliers.flatten().to(tokens.device)
    basis = found.basis.double()
    energy = tokens.square().sum(dim=1)
    shorter = tokens[energy.argsort()[: max(1, round(NORMAL_SHARE * len(tokens)))]]
    shorter = shorter - shorter.mean(dim=0)
    channel = None
    if found.number:
        largest = int(basis.square().max(dim=1).values.argmax())
        channel = (largest, float(basis[largest].square().max()))
    by_channel = tokens[~mask].square().sum(dim=0)
    common = int(by_channel.argmax())
    return Nature(
        found.number,
        found.share,
        float(energy[mask].sum() / energy.sum().clamp_min(1e-300)) if found.number else 0.0,
        float((shorter @ basis).square().sum() / shorter.square().sum().clamp_min(1e-300)),
        found.blind,
        recurrence(mask.reshape(patches.shape[:2])),
        channel,
        (common, float(by_channel[common] / by_channel.sum().clamp_min(1e-300))),
    )


def recurrence(mask: torch.Tensor) -> float | None:
    """How much the marked tokens of `mask` (bool [images, patches]) keep to places: 0 not at all, 1 always the same.

    It is (P - p) / (1 - p), Fleiss' kappa of the images for "here is one": P is the probability that a place which is
    marked in one image is marked in another, p that of any place. If a share f of the artifacts sits at places that
    have one in every image and the others fall anywhere, it is about f for few artifacts; if all keep to places that
    have one in a share q of the images, it is (q - p) / (1 - p). From one half on (`LOCKED`) most artifacts are where
    the other images have theirs, beyond chance. Chance alone leaves it within a few sqrt(2 / places) / images of 0: .04
    with 4 images of 64 places. None without marks, with one image, or where everything is marked.
    """
    images = len(mask)
    counts = mask.double().sum(dim=0)
    marked = float(counts.sum())
    by_chance = marked / mask.numel()
    if images < 2 or marked == 0 or by_chance == 1:
        return None
    again = float((counts * (counts - 1)).sum()) / ((images - 1) * marked)
    return (again - by_chance) / (1 - by_chance)


def _with_artifacts(tokens: torch.Tensor, found: ArtifactDirections) -> torch.Tensor:
    """The share of the tokens [count, dim] that `found` speaks of: bool [count]."""
    size = ((tokens - found.centre) @ found.basis.double()).abs().amax(dim=1)
    mask = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    mask[size.topk(round(found.share * len(tokens))).indices] = True
    return mask
