"""What the figures mean, in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from singer_ray.analysis.artifacts import LayerReport
from singer_ray.analysis.gradient_bias import GradientBias, fair_gradient_share

ARTIFACT_ENERGY = 0.05
"""Below this share of the energy at a distilled layer, outlier tokens are no artifacts that matter."""
WORTHWHILE = 0.75
"""A refiner that leaves more than this part of the gradient share is no remedy."""
SMALLEST_RANK = 8


@dataclass(frozen=True)
class Verdict:
    """The answers, and the paragraph that gives them."""

    artifacts: bool
    """Whether a distilled layer has outlier tokens with a share of the energy that matters."""
    biased: bool
    """Whether they weigh more in the gradient of plain distillation than their number explains."""
    remedy: bool | None
    """Whether refinement takes that weight away; None where it was not tried or there is nothing to remedy."""
    rank: int | None
    """Where to start with `method.rank`; None without artifacts."""
    text: str


def judge(
    teacher: str,
    reports: Mapping[int, LayerReport],
    layers: Sequence[int],
    track: Sequence[tuple[int, Mapping[str, GradientBias]]],
    *,
    k: float,
    width: int,
) -> Verdict:
    """The verdict on the features of `layers`.

    `track` holds (training step, refiner -> gradient bias), of `none` and any refiner that was tried. At its first step
    all have the same student: that is where gradients are compared.
    """
    biases = track[0][1]
    chosen = [reports[n] for n in layers]
    worst = max(layers, key=lambda n: reports[n].energy_share)
    if reports[worst].energy_share < ARTIFACT_ENERGY:
        return Verdict(False, False, None, None, _without(teacher, reports, layers, worst, k))
    share = sum(r.token_share for r in chosen) / len(chosen)
    fair = fair_gradient_share(share)
    plain = biases["none"]
    biased = plain.gradient_share > fair
    rank = starting_rank([reports[n] for n in layers], width)
    sentences = [
        f"Teacher {teacher} has artifacts: at block {worst}, {_percent(reports[worst].token_share)} of the patch "
        f"tokens have more than {k:g} x the median norm of their image (the largest {reports[worst].max_median:.1f} x "
        f"in the mean) and hold {_percent(reports[worst].energy_share)} of the energy{_along(reports, layers)}."
    ]
    weight = (
        f"in plain feature distillation they make {_percent(plain.loss_share)} of the loss and "
        f"{_percent(plain.gradient_share)} of the gradient at the start"
    )
    sentences.append(
        f"They bias distillation: {weight}, where their number explains at most {_percent(fair)}."
        if biased
        else f"They do not bias distillation here: {weight}, which their number explains (up to {_percent(fair)})."
    )
    remedy = None
    for name, refined in biases.items():
        if name == "none" or not biased:
            continue
        remedy = refined.gradient_share < WORTHWHILE * plain.gradient_share
        change = f"from {_percent(plain.gradient_share)} to {_percent(refined.gradient_share)}"
        sentences.append(
            f"Refiner {name} brings the same tokens' share of the gradient {change}, so it is worth trying."
            if remedy
            else f"Refiner {name} brings the same tokens' share of the gradient {change} only: as it is set, it is no "
            "remedy. Try a higher --method.rank or --method.prefit.steps."
        )
    if biased and len(track) > 1:
        means = {name: sum(step[name].loss_share for _, step in track[1:]) / (len(track) - 1) for name in biases}
        listed = " and ".join(f"{_percent(share)} with refiner {name}" for name, share in means.items())
        sentences.append(f"In the {track[-1][0]} training steps after, their share of the loss was {listed}.")
    if biased and len(biases) == 1:
        sentences.append("No refiner was tried; give one with --method.refiner.")
    if biased and rank is not None:
        sentences.append(f"Start with --method.rank {rank}.")
    return Verdict(True, biased, remedy, rank, " ".join(sentences))


def starting_rank(reports: Sequence[LayerReport], width: int) -> int | None:
    """The power of two at or above twice the largest estimate of artifact directions, at least 8, at most `width`.

    A rank below their number leaves artifacts; above it, more costs little. None where no layer has an estimate.
    """
    counts = [max(r.directions.count.values()) for r in reports if r.directions]
    if not counts:
        return None
    return min(width, max(SMALLEST_RANK, 1 << (2 * max(counts) - 1).bit_length()))


def _without(teacher: str, reports: Mapping[int, LayerReport], layers: Sequence[int], worst: int, k: float) -> str:
    blocks = _blocks(layers)
    largest = max(reports[n].max_median for n in layers)
    elsewhere = [n for n, r in reports.items() if n not in layers and r.energy_share >= ARTIFACT_ENERGY]
    extent = (
        f"no patch token at the distilled {blocks} has more than {k:g} x the median norm of its image"
        if not any(reports[n].outliers.any() for n in layers)
        else f"patch tokens above {k:g} x the median norm of their image hold at most "
        f"{_percent(reports[worst].energy_share)} of the energy at the distilled {blocks}"
    )
    text = (
        f"Teacher {teacher} has no artifacts that matter: {extent} (the largest {largest:.1f} x in the mean). They "
        "cannot bias distillation, and refinement will not help: distil the features as they are with "
        "--method.refiner none."
    )
    return text + (f" Other layers do have artifacts: {_blocks(elsewhere)}." if elsewhere else "")


def _along(reports: Mapping[int, LayerReport], layers: Sequence[int]) -> str:
    counts = {n: report.directions.count for n in layers if (report := reports[n]).directions}
    if not counts:
        return ""
    by_block = [f"{'-'.join(str(c) for c in sorted(set(count.values())))} at block {n}" for n, count in counts.items()]
    return f"; the directions that carry 90-95 % of what they have in excess number {', '.join(by_block)}"


def _blocks(layers: Sequence[int]) -> str:
    names = [str(n) for n in layers]
    return f"block {names[0]}" if len(names) == 1 else f"blocks {', '.join(names[:-1])} and {names[-1]}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"
