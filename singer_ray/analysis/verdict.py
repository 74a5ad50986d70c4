"""What the figures mean, in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from singer_ray.analysis import character
from singer_ray.analysis.artifacts import LayerReport
from singer_ray.analysis.gradient_bias import GradientBias, fair_gradient_share
from singer_ray.analysis.remedy import ARTIFACT_ENERGY, choose_remedy, has_artifacts, name_blocks, percent

WORTHWHILE = 0.75
"""A refiner that leaves more than this part of the gradient share is no remedy."""
Reports = Mapping[int, LayerReport]
Track = Sequence[tuple[int, Mapping[str, GradientBias]]]


@dataclass(frozen=True)
class Verdict:
    """The answers, and the paragraph that gives them."""

    artifacts: bool
    """Whether a distilled layer has artifacts with a share of the energy that matters."""
    biased: bool | None
    """Whether they weigh more in the gradient of plain distillation than their number explains; None where norms do not
    tell which tokens they are, since most are."""
    remedy: bool | None
    """Whether the refiner that was tried takes that weight away; None where none was or there is nothing to remedy."""
    refiner: str
    """What to try first as `method.refiner`: none, singer or layernorm."""
    rank: int | None
    """Where to start with `method.rank`; None where no directions are to be taken out."""
    why: str
    """Why that refiner; empty without artifacts."""
    block: int
    """The distilled block where artifacts hold most of the energy; the next four are about it."""
    token_share: float
    """Share of its patch tokens that are artifacts."""
    directions: int
    """How many directions they lie along."""
    locked: bool
    """Whether they sit at the same places in most images."""
    channel: int | None
    """The massive channel that one of the directions is; None if none is."""
    blocks: list[int]
    """All blocks of the teacher that have artifacts that matter."""
    text: str


def judge(teacher: str, reports: Reports, layers: Sequence[int], track: Track, *, k: float, width: int) -> Verdict:
    """The verdict on the features of `layers`.

    `track` holds (training step, refiner -> gradient bias), of `none` and any refiner that was tried. At its first step
    all have the same student: that is where gradients are compared.
    """
    worst = max(layers, key=lambda n: (reports[n].nature.blind, _energy(reports[n])))
    report, nature = reports[worst], reports[worst].nature
    artifacts = any(has_artifacts(reports[n]) for n in layers)
    biased, remedy, weight = _weight(reports, layers, track) if artifacts else (False, None, [])
    first = choose_remedy(reports, layers, biased=biased, width=width)
    if artifacts:
        sentences = [
            _extent(teacher, report, worst, k) + _along(reports, layers) + ".",
            *character.of_artifacts(reports, layers, worst),
            *weight,
        ]
    else:
        sentences = [_without(teacher, reports, layers, worst, k)]
    return Verdict(
        artifacts,
        biased,
        remedy,
        first.refiner,
        first.rank,
        first.why,
        worst,
        max(nature.token_share, report.token_share),
        nature.number,
        nature.locked,
        nature.artifact_channel,
        [n for n, other in reports.items() if has_artifacts(other)],
        " ".join(filter(None, [*sentences, *character.of_normal_tokens(report), first.why])),
    )


def _energy(report: LayerReport) -> float:
    return max(report.energy_share, report.nature.energy_share)


def _extent(teacher: str, report: LayerReport, block: int, k: float) -> str:
    nature = report.nature
    if nature.blind:
        return (
            f"Teacher {teacher} has more artifacts than normal tokens, or some very short ones: at block {block} the "
            "median patch token is more than 3 x as long as the shortest 2 %"
        )
    if report.energy_share >= ARTIFACT_ENERGY:
        return (
            f"Teacher {teacher} has artifacts: at block {block}, {percent(report.token_share)} of the patch tokens "
            f"have more than {k:g} x the median norm of their image (the largest {report.max_median:.1f} x in the "
            f"mean) and hold {percent(report.energy_share)} of the energy"
        )
    return (
        f"Teacher {teacher} has artifacts that norms do not show: at block {block}, {percent(nature.token_share)} of "
        f"the patch tokens lie far out along one direction, more than twice the length of normal tokens, and hold "
        f"{percent(nature.energy_share)} of the energy"
    )


def _along(reports: Reports, layers: Sequence[int]) -> str:
    """How many directions there are, and what share of the tokens has one."""
    found = {n: nature for n in layers if (nature := reports[n].nature).number}
    if not found:
        return ""
    listed = [
        f"{nature.number} direction{'s' * (nature.number > 1)} of {percent(nature.token_share)} of the tokens at "
        f"block {n}"
        for n, nature in found.items()
    ]
    return f"; they lie along {', '.join(listed)}"


def _weight(reports: Reports, layers: Sequence[int], track: Track) -> tuple[bool | None, bool | None, list[str]]:
    """`biased`, `remedy`, and sentences about both: what artifacts weigh in plain distillation, and with a refiner."""
    if all(reports[n].energy_share < ARTIFACT_ENERGY for n in layers):
        return None, None, []
    biases = track[0][1]
    fair, plain = fair_gradient_share(sum(reports[n].token_share for n in layers) / len(layers)), biases["none"]
    shares = (
        f"in plain feature distillation they make {percent(plain.loss_share)} of the loss and "
        f"{percent(plain.gradient_share)} of the gradient at the start"
    )
    if plain.gradient_share <= fair:
        which = f"which their number explains (up to {percent(fair)})"
        return False, None, [f"They do not bias distillation here: {shares}, {which}."]
    remedy = None
    sentences = [f"They bias distillation: {shares}, where their number explains at most {percent(fair)}."]
    for name, refined in biases.items():
        if name == "none":
            continue
        remedy = refined.gradient_share < WORTHWHILE * plain.gradient_share
        change = f"from {percent(plain.gradient_share)} to {percent(refined.gradient_share)}"
        sentences.append(
            f"Refiner {name} brings the same tokens' share of the gradient {change}, so it is worth trying."
            if remedy
            else f"Refiner {name} brings the same tokens' share of the gradient {change} only: as it is set, it is no "
            "remedy."
        )
    if len(track) > 1:
        means = {name: sum(step[name].loss_share for _, step in track[1:]) / (len(track) - 1) for name in biases}
        listed = " and ".join(f"{percent(share)} with refiner {name}" for name, share in means.items())
        sentences.append(f"In the {track[-1][0]} training steps after, their share of the loss was {listed}.")
    if len(biases) == 1:
        sentences.append("No refiner was tried; give one with --method.refiner.")
    return True, remedy, sentences


def _without(teacher: str, reports: Reports, layers: Sequence[int], worst: int, k: float) -> str:
    blocks = name_blocks(layers)
    largest = max(reports[n].max_median for n in layers)
    elsewhere = [n for n, report in reports.items() if n not in layers and has_artifacts(report)]
    extent = (
        f"no patch token at the distilled {blocks} has more than {k:g} x the median norm of its image"
        if not any(reports[n].outliers.any() for n in layers)
        else f"patch tokens above {k:g} x the median norm of their image hold at most "
        f"{percent(reports[worst].energy_share)} of the energy at the distilled {blocks}"
    )
    text = (
        f"Teacher {teacher} has no artifacts that matter: {extent} (the largest {largest:.1f} x in the mean). They "
        "cannot bias distillation, and refinement will not help: distil the features as they are with "
        "--method.refiner none."
    )
    return text + (f" Other layers do have artifacts: {name_blocks(elsewhere)}." if elsewhere else "")
