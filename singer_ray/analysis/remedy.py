"""Which remedy to try first, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from singer_ray.analysis.artifacts import LayerReport

ARTIFACT_ENERGY = 0.05
"""Below this share of the energy at a distilled layer, artifacts do not matter."""
MANY = 0.25
"""Share of the width: more directions than that are not taken out for little."""
SMALLEST_RANK = 16
"""The default of `method.rank`."""


@dataclass(frozen=True)
class Remedy:
    """What to try first."""

    refiner: str
    """For --method.refiner: none, singer or layernorm."""
    rank: int | None
    """For --method.rank; None for refiners that have none."""
    why: str
    """The advice and its reason, in a sentence or two; empty where there is nothing to mend."""


def has_artifacts(report: LayerReport) -> bool:
    """Whether a layer has artifacts that matter: by norm, by direction, or so many that they are the rule."""
    nature = report.nature
    return nature.blind or max(report.energy_share, nature.energy_share) >= ARTIFACT_ENERGY


def choose_remedy(
    reports: Mapping[int, LayerReport], layers: Sequence[int], *, biased: bool | None, width: int
) -> Remedy:
    """The remedy to try first at the distilled `layers`; `biased` is None where that could not be measured.

    1. No artifacts: none. All remedies change features, and there is nothing to gain.
    2. Most tokens are artifacts: layernorm. All others ask which tokens are normal.
    3. Artifacts that weigh no more in the gradient than their number explains: none.
    4. Artifacts with directions of their own: singer, which takes these out in closed form and nothing else. With 15 %
       artifacts in 1, 2 and 3 directions students had test mIoU .453, .516 and .531 with it, .359, .490 and .493 with
       layernorm, .430, .501 and .502 with the fitted adapter (tests/benchmarks/planted.py, one seed). `rank` bounds the
       number.
    5. More than a quarter of the width in directions: layernorm. Taking them out costs all tokens as much of what they
       hold; up to an eighth was measured to be worth it.
    6. Long tokens without directions of their own: layernorm. Only their length can be mended.
    """
    affected = {n: report for n in layers if has_artifacts(report := reports[n])}
    if not affected:
        return Remedy("none", None, "")
    if any(report.nature.blind for report in affected.values()):
        return _for_most(reports, affected)
    if biased is False:
        return Remedy("none", None, "So --method.refiner none is what to try first.")
    return _for_some(list(affected.values()), width)


def _for_most(reports: Mapping[int, LayerReport], affected: Mapping[int, LayerReport]) -> Remedy:
    blind = name_blocks([n for n, report in affected.items() if report.nature.blind])
    seeing = [n for n, report in reports.items() if not report.nature.blind]
    other = f", or distil another block (--teacher.layers; {name_blocks(seeing)} can be read)" if seeing else ""
    return Remedy(
        "layernorm",
        None,
        f"Try --method.refiner layernorm first{other}: at {blind} most patch tokens are artifacts or some are very "
        "short, so which are normal cannot be told, and layernorm does not ask.",
    )


def _for_some(affected: Sequence[LayerReport], width: int) -> Remedy:
    number, rank = max(report.nature.number for report in affected), starting_rank(affected, width)
    if rank is None:
        return Remedy(
            "layernorm",
            None,
            "Try --method.refiner layernorm first: these tokens are long but share no directions of their own, so "
            "there is nothing to take out, and only their length can be mended.",
        )
    if number > MANY * width:
        return Remedy(
            "layernorm",
            None,
            f"Try --method.refiner layernorm first: the artifacts have {number} of {width} directions, and taking all "
            "of these out would cost normal tokens too much.",
        )
    cost = max(report.nature.content_share for report in affected)
    return Remedy(
        "singer",
        rank,
        "Try --method.refiner singer first, which takes the artifacts' directions out in closed form: normal tokens "
        f"have at most {percent(cost)} of their variance there. How many there are is found; --method.rank {rank} is "
        "the most that are taken out, and leaves room.",
    )


def starting_rank(reports: Sequence[LayerReport], width: int) -> int | None:
    """The power of two at or above twice the largest number of directions, at least 16, at most `width`.

    A rank below their number leaves artifacts; above it, more costs nothing. None where no layer has directions.
    """
    largest = max((report.nature.number for report in reports), default=0)
    if not largest:
        return None
    return min(width, max(SMALLEST_RANK, 1 << (2 * largest - 1).bit_length()))


def name_blocks(layers: Sequence[int]) -> str:
    """`block 3`, `blocks 3 and 5`, `blocks 2 to 5`."""
    names = [str(n) for n in layers]
    if len(names) == 1:
        return f"block {names[0]}"
    if len(names) > 2 and list(layers) == list(range(layers[0], layers[-1] + 1)):
        return f"blocks {names[0]} to {names[-1]}"
    return f"blocks {', '.join(names[:-1])} and {names[-1]}"


def percent(share: float) -> str:
    """`4.2 %`, `42 %`."""
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"
