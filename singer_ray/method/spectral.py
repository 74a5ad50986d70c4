"""The directions of a teacher's artifacts, found in its features and removed in closed form: spectral SiNGER.

An artifact is a token whose norm is far above that of normal tokens. Large teachers make them by adding a multiple of
one of a few directions to the token. A normal token's coefficient along any one direction is at most its distance from
the centre of the normal tokens (2.15 normal lengths in all layers of the clean teachers that were measured); so a
direction along which several tokens of several images have coefficients of more than `LONGER` normal lengths is an
artifact's, and nothing else is: not the mean (coefficients are measured from the centre), not positions or semantic
clusters (they make up the normal tokens), not a massive channel that all tokens share (it makes all of them long, the
normal ones too).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

NORMAL_SHARE = 0.4
"""The shorter tokens that are taken for normal: up to 60 % of all tokens may be artifacts."""
LONGER = 3.0
"""A coefficient of more than this many normal lengths is an artifact's."""
MIN_TOKENS, MIN_SHARE, MIN_IMAGES = 8, 2e-4, 4
"""A direction counts from this many tokens on, this share of all of them, and this many images."""
BLIND = 3.0
"""Where the median token is this many times as long as the shortest 2 %, most tokens are artifacts."""


@dataclass(frozen=True)
class ArtifactDirections:
    """What takes the artifacts out of the features of one layer: F^ = F - (F - centre) U U^T."""

    centre: torch.Tensor
    """float32 [dim]: mean of the normal tokens."""
    basis: torch.Tensor
    """U, float32 [dim, number]: orthonormal columns, by falling energy of the artifacts along them."""
    share: float
    """Share of all tokens that are artifacts: their coefficient along one of the directions is too long."""
    left: int
    """Directions beyond the bound on their number that would count as well."""
    blind: bool
    """Whether most tokens are artifacts, so that nobody can tell which are normal; then there are no directions."""

    @property
    def number(self) -> int:
        """How many directions are taken out."""
        return self.basis.shape[1]


def artifact_directions(patches: torch.Tensor, most: int) -> ArtifactDirections:
    """The directions of the artifacts among patch tokens [images, patches, dim], at most `most` of them.

    Of the tokens that are too long, the leading eigenvector of their second moment about the centre is taken out, as
    long as it `counts`; then those that are still too long are asked again. The eigenvectors of all tokens together
    would mix an artifact's direction with those along which normal tokens vary, where artifacts are few.
    """
    images, count, dim = patches.shape
    tokens = patches.detach().double().flatten(0, 1)
    owner = torch.arange(images, device=tokens.device).repeat_interleave(count)
    norms = tokens.norm(dim=1)
    order = norms.argsort()
    shorter = order[: max(1, round(NORMAL_SHARE * len(order)))]
    length = float(norms[shorter].median())
    shortest = float(norms[order[: max(1, len(order) // 50)]].median())
    basis = tokens.new_zeros(dim, 0)
    centre = tokens[shorter].mean(dim=0)
    needed = max(MIN_TOKENS, round(MIN_SHARE * len(tokens)))
    limit = LONGER * length
    left = 0
    rest = tokens - centre
    while basis.shape[1] + left < dim:
        suspects = rest[rest.norm(dim=1) > limit]
        if len(suspects) < needed:
            break
        axis = torch.linalg.eigh(suspects.mT @ suspects).eigenvectors[:, -1:]
        along = rest @ axis
        far = along[:, 0].abs() > limit
        if int(far.sum()) < needed or len(owner[far].unique()) < min(MIN_IMAGES, images):
            break
        rest = rest - along @ axis.mT
        if basis.shape[1] < most:
            basis = torch.cat([basis, axis], dim=1)
        else:
            left += 1
    # The centre was that of the shorter tokens; along U, that of all tokens which are no artifacts is a better one.
    share = 0.0
    if basis.shape[1]:
        longest = ((tokens - centre) @ basis).abs().amax(dim=1)
        centre = centre + basis @ (basis.mT @ (tokens[longest <= length].mean(dim=0) - centre))
        share = float((longest > limit).double().mean())
    blind = not share and float(norms.median()) > BLIND * max(shortest, 1e-12)
    return ArtifactDirections(centre.float(), basis.float(), share, left, blind)


def in_words(found: ArtifactDirections, most: int) -> str:
    """What was found, in one line for the log; `most` is the bound that was given."""
    if found.blind:
        return (
            "most patch tokens are artifacts or some are very short, so which are normal cannot be told; the features "
            "are left as they are. --method.refiner layernorm needs no normal tokens"
        )
    if not found.number:
        return "no artifact directions; the features are left exactly as they are"
    line = (
        f"{found.number} artifact direction{'s' * (found.number > 1)}, of {100 * found.share:.2g} % of the patch tokens"
    )
    if found.left:
        line += f"; {found.left} more stay in the features, since method.rank is {most}"
    return line
