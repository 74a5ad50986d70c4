"""What the artifacts of a teacher are like, block by block: how large, how many, where, and along which directions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from singer_ray.analysis.nature import Nature, nature_of
from singer_ray.method.artifacts import max_median_ratio, normal_mask, outlier_mask, patch_norms, relative_norms
from singer_ray.method.nullspace import linearized_block
from singer_ray.vision.tapped import TappedViT, evaluating

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
BINS = tuple(2 ** (step / 4) for step in range(-12, 33))
"""Edges of the norm histogram, in medians of the image: quarter octaves from 1/8 to 256."""
TOP = (1, 2, 4, 8, 16)
"""Numbers of leading directions whose share of the outliers' energy is reported."""
ENERGY_LEVELS = (0.9, 0.95)
MIN_OUTLIERS = 8
"""Fewer outlier tokens than this say nothing about directions."""
KEPT_VALUES, MIN_KEPT = 2**28, 8
"""Values that all layers together keep for their `Nature` (1 GiB in float32), and images at least."""


@dataclass(frozen=True)
class Directions:
    """Where in feature space the outlier tokens deviate from the normal ones."""

    basis: torch.Tensor
    """float64 [dim, dim]: orthonormal columns, by falling `excess`."""
    excess: torch.Tensor
    """float64 [dim]: energy an outlier token has along each, beyond what a normal token has; negative values are 0."""
    top_shares: Mapping[int, float]
    """n -> share of the outlier tokens' deviation energy in its n leading singular directions."""
    count: Mapping[float, int]
    """level -> how many directions carry that share of all excess: the estimated number of artifact directions."""
    read_shares: Mapping[str, float]
    """`null_space` and `read_space`: shares of the deviation energy in the `rank` directions that the next block reads
    least and most; `normal_null_space`, `normal_read_space`: the same of normal tokens; `space_chance`: rank / dim,
    what directions at random would have. Empty for unknown blocks."""


@dataclass(frozen=True)
class LayerReport:
    """One block's output over a set of images."""

    norms: torch.Tensor
    """float32 [images, patches]"""
    outliers: torch.Tensor
    """bool [images, patches]: norm above k x median of the image."""
    grid: tuple[int, int]
    directions: Directions | None
    """None where there are too few outlier tokens."""
    nature: Nature
    """What kind of artifacts these are, by the first images."""
    after_norm: float | None = None
    """`max_median` behind the network's final norm: of the last block, where tokens have such a norm."""

    @property
    def max_median(self) -> float:
        """Largest over median norm of an image, mean over images."""
        return float(max_median_ratio(self.norms).mean())

    @property
    def token_share(self) -> float:
        """Share of all patch tokens that are outliers."""
        return float(self.outliers.double().mean())

    @property
    def energy_share(self) -> float:
        """Share of the sum of squared norms that is in outlier tokens."""
        energy = self.norms.double().square()
        return float(energy[self.outliers].sum() / energy.sum().clamp_min(1e-300))

    @property
    def relative_norms(self) -> torch.Tensor:
        """Norms over the median of their image: float32 [images, patches]."""
        return relative_norms(self.norms)

    @property
    def frequency(self) -> torch.Tensor:
        """How often each place of the patch grid holds an outlier: float64 [rows, columns], 0 to 1."""
        return self.outliers.double().mean(dim=0).reshape(self.grid)

    @property
    def border_share(self) -> float:
        """Share of the outlier tokens that lie on the outermost patches of the grid; 0 without outliers."""
        frequency = self.frequency
        return float(frequency[border(self.grid)].sum() / frequency.sum().clamp_min(1e-300))

    @property
    def border_chance(self) -> float:
        """What `border_share` would be if artifacts fell anywhere: the share of patches that are outermost."""
        return float(border(self.grid).double().mean())

    def metrics(self, layer: int) -> dict[str, float]:
        """Flat names, `teacher/NAME/LAYER`."""
        metrics: dict[str, float] = {
            "max_median_norm": self.max_median,
            "outlier_token_share": self.token_share,
            "outlier_energy_share": self.energy_share,
        }
        for level, value in zip(QUANTILES, self.quantiles()):
            metrics[f"norm_q{100 * level:02.0f}"] = value
        if self.outliers.any():
            metrics |= {"border_share": self.border_share, "border_share_chance": self.border_chance}
        if self.directions:
            for n, share in self.directions.top_shares.items():
                metrics[f"outlier_energy_top_{n}"] = share
            for level, count in self.directions.count.items():
                metrics[f"artifact_directions_{100 * level:.0f}"] = count
            metrics |= {f"outlier_energy_{name}": share for name, share in self.directions.read_shares.items()}
        if self.after_norm is not None:
            metrics["max_median_after_norm"] = self.after_norm
        metrics |= self.nature.metrics()
        return {f"teacher/{name}/{layer}": value for name, value in metrics.items()}

    def quantiles(self) -> list[float]:
        """The `QUANTILES` of all norms, in the features' own unit."""
        # torch.quantile refuses more than 16 million values.
        ordered = self.norms.flatten().sort().values
        return [float(ordered[round(level * (len(ordered) - 1))]) for level in QUANTILES]

    def detail(self) -> dict[str, Any]:
        """What is no single number: the histogram of norms over the image's median, and the map of outliers."""
        inside = self.relative_norms.cpu().clamp(BINS[0], BINS[-1])
        counts = torch.histogram(inside, torch.tensor(BINS)).hist
        return {
            "histogram": {"edges": list(BINS), "counts": [int(n) for n in counts]},
            "outlier_frequency": self.frequency.tolist(),
        }


def border(grid: tuple[int, int]) -> torch.Tensor:
    """The outermost patches: bool [rows, columns]."""
    mask = torch.ones(grid, dtype=torch.bool)
    mask[1:-1, 1:-1] = False
    return mask


def survey_layers(
    teacher: TappedViT,
    batches: Iterable[torch.Tensor],
    grid: tuple[int, int],
    *,
    k: float,
    rank: int,
) -> dict[int, LayerReport]:
    """A report of every layer that `teacher` is tapped at, in one pass that keeps the tokens of few images only.

    Args:
        batches: normalised images [batch, 3, size, size].
        k: a token is an outlier above k x the median norm of its image.
        rank: size of the null space and of the read space that outliers are compared with.
    """
    kept = max(MIN_KEPT, KEPT_VALUES // (len(teacher.layers) * grid[0] * grid[1] * teacher.width))
    surveys = {n: _Survey(k, kept) for n in teacher.layers}
    norm = None if isinstance(teacher.final_norm, nn.Identity) else teacher.final_norm
    with evaluating(teacher):
        for pixels in batches:
            for layer, tokens in teacher(pixels).tokens.items():
                surveys[layer].add(tokens[:, teacher.prefix :])
                if norm is not None and layer == teacher.depth - 1:
                    surveys[layer].add_behind_norm(norm(tokens)[:, teacher.prefix :])
    return {n: survey.report(grid, read_spaces(teacher, n, rank)) for n, survey in surveys.items()}


def read_spaces(teacher: TappedViT, layer: int, rank: int) -> dict[str, torch.Tensor]:
    """`null_space` and `read_space`: the `rank` directions that the next block's linearisation changes least and most.

    Orthonormal columns, float64 [dim, rank]. The last block stands in for its own next one, as in `Singer`. Empty for
    a block that `linearized_block` does not know.
    """
    try:
        matrix = linearized_block(teacher.blocks[min(layer + 1, teacher.depth - 1)])
    except ValueError:
        return {}
    _, _, right = torch.linalg.svd(matrix.double(), full_matrices=True)
    return {"null_space": right[-rank:].T, "read_space": right[:rank].T}


def find_directions(
    outlier_moment: torch.Tensor, normal_moment: torch.Tensor, spaces: Mapping[str, torch.Tensor] | None = None
) -> Directions:
    """The directions in which outlier tokens deviate from normal ones.

    Args:
        outlier_moment, normal_moment: mean of (x - m)(x - m)^T over the outlier and the normal tokens, m the mean of
            the normal ones: float64 [dim, dim].
        spaces: named orthonormal columns [dim, rank] whose share of either energy is wanted.

    The number of artifact directions is how many eigenvectors of `outlier_moment - normal_moment` carry 90 % (95 %) of
    its positive eigenvalues: energy that normal tokens have as well does not count. An artifact whose direction
    depends on the token, as it may once further blocks have turned it, counts as several.
    """
    values, vectors = torch.linalg.eigh(outlier_moment - normal_moment)
    excess = values.flip(0).clamp_min(0)
    cumulative = excess.cumsum(0) / excess.sum().clamp_min(1e-300)
    singular = torch.linalg.eigvalsh(outlier_moment).flip(0).clamp_min(0)
    shares = singular.cumsum(0) / singular.sum().clamp_min(1e-300)
    read = {}
    for name, space in (spaces or {}).items():
        read[name] = _share_in(outlier_moment, space)
        read[f"normal_{name}"] = _share_in(normal_moment, space)
        read["space_chance"] = space.shape[1] / space.shape[0]
    return Directions(
        vectors.flip(1),
        excess,
        {n: float(shares[n - 1]) for n in TOP if n <= len(shares)},
        {level: int((cumulative < level).sum()) + 1 for level in ENERGY_LEVELS},
        read,
    )


def _share_in(moment: torch.Tensor, space: torch.Tensor) -> float:
    space = space.to(moment)
    return float((space.mT @ moment @ space).trace() / moment.trace().clamp_min(1e-300))


class _Survey:
    """Norms, sums from which the second moments of outlier and normal tokens follow, and the first images' tokens."""

    def __init__(self, k: float, kept: int) -> None:
        self.k, self.kept = k, kept
        self.tokens: list[torch.Tensor] = []
        self.behind_norm: list[torch.Tensor] = []
        self.norms: list[torch.Tensor] = []
        self.outliers: list[torch.Tensor] = []
        self.sums: dict[bool, tuple[int, torch.Tensor, torch.Tensor]] = {}

    def add(self, patches: torch.Tensor) -> None:
        norms = patch_norms(patches)
        outliers = outlier_mask(norms, self.k)
        self.norms.append(norms.cpu())
        self.outliers.append(outliers.cpu())
        missing = self.kept - sum(len(tokens) for tokens in self.tokens)
        if missing > 0:
            self.tokens.append(patches[:missing].float().cpu())
        for kind, chosen in ((True, outliers), (False, normal_mask(norms) & ~outliers)):
            tokens = patches[chosen].double()
            count, total, square = self.sums.get(kind, (0, 0, 0))
            self.sums[kind] = (count + len(tokens), total + tokens.sum(dim=0), square + tokens.mT @ tokens)

    def add_behind_norm(self, patches: torch.Tensor) -> None:
        self.behind_norm.append(max_median_ratio(patch_norms(patches)).cpu())

    def report(self, grid: tuple[int, int], spaces: Mapping[str, torch.Tensor]) -> LayerReport:
        directions = None
        if self.sums[True][0] >= MIN_OUTLIERS:
            count, total, _ = self.sums[False]
            mean = total / count
            outlier, normal = (_moment_about(mean, *self.sums[kind]) for kind in (True, False))
            directions = find_directions(outlier, normal, spaces)
        norms, outliers, tokens = torch.cat(self.norms), torch.cat(self.outliers), torch.cat(self.tokens)
        self.tokens = []  # one layer's are held twice at a time
        after = float(torch.cat(self.behind_norm).mean()) if self.behind_norm else None
        return LayerReport(norms, outliers, grid, directions, nature_of(tokens, outliers[: len(tokens)]), after)


def _moment_about(mean: torch.Tensor, count: int, total: torch.Tensor, square: torch.Tensor) -> torch.Tensor:
    cross = torch.outer(total, mean)
    return (square - cross - cross.mT) / count + torch.outer(mean, mean)
