"""The remedy to try first, case by case."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from singer_ray.analysis.artifacts import LayerReport
from singer_ray.analysis.nature import Nature
from singer_ray.analysis.remedy import choose_remedy, name_blocks, starting_rank

CLEAN: dict[str, Any] = {
    "number": 0,
    "token_share": 0.0,
    "energy_share": 0.0,
    "content_share": 0.0,
    "blind": False,
    "recurrence": None,
    "channel": None,
    "common_channel": (0, 0.1),
}


def nature(number: int = 0, **fields: Any) -> Nature:
    """Of a clean layer, or of one with artifacts along `number` directions that hold most of the energy."""
    having: dict[str, Any] = {"number": number, "token_share": 0.1, "energy_share": 0.8, "recurrence": 0.0}
    return Nature(**{**CLEAN, **(having if number else {}), "channel": (3, 0.2) if number else None, **fields})


def report(size: float = 1.2, of: Nature | None = None, after_norm: float | None = None) -> LayerReport:
    """One token in twenty has `size` x the norm of the others."""
    norms = torch.ones(4, 20)
    norms[:, 0] = size
    return LayerReport(norms, norms > 4, (4, 5), None, of or nature(), after_norm)


def first(*reports: LayerReport, biased: bool | None = True, layers: tuple[int, ...] = (0, 1), width: int = 64) -> Any:
    return choose_remedy(dict(enumerate(reports)), layers, biased=biased, width=width)


@pytest.mark.parametrize(
    ("worst", "refiner", "rank", "why"),
    [
        (report(), "none", None, ""),
        (report(4.5, nature(1, energy_share=0.02)), "singer", 16, "How many there are is found"),
        (report(20, nature(3)), "singer", 16, "--method.rank 16"),
        (report(20, nature(12)), "singer", 32, "--method.rank 32"),
        (report(1.2, nature(2, token_share=0.5)), "singer", 16, "--method.rank 16"),  # too many for norms to show
        (report(20, nature(17)), "layernorm", None, "have 17 of 64 directions"),
        (report(20), "layernorm", None, "no directions of their own"),
        (report(20, nature(blind=True)), "layernorm", None, "most patch tokens are artifacts"),
        (report(1.2, nature(1, energy_share=0.002)), "none", None, ""),  # a direction of a few tokens
    ],
)
def test_each_kind_has_its_remedy(worst: LayerReport, refiner: str, rank: int | None, why: str) -> None:
    for found in (first(report(), worst), first(worst, report())):
        assert (found.refiner, found.rank) == (refiner, rank)
        assert why in found.why
        assert not found.why or refiner == "none" or f"Try --method.refiner {refiner} first" in found.why


def test_artifacts_of_other_layers_need_no_remedy() -> None:
    assert first(report(20, nature(3)), report(), layers=(1,)).refiner == "none"


def test_artifacts_that_do_not_bias_need_none_either() -> None:
    assert first(report(20, nature(3)), report(), biased=False).refiner == "none"
    assert first(report(20, nature(3)), report(), biased=None).refiner == "singer"


def test_a_layer_that_cannot_be_read_outweighs_one_that_can_and_names_the_others() -> None:
    found = first(report(), report(20, nature(3)), report(2, nature(blind=True)), layers=(1, 2), biased=None)
    assert found.refiner == "layernorm"
    assert "at block 2" in found.why
    assert "blocks 0 and 1 can be read" in found.why


@pytest.mark.parametrize(("number", "rank"), [(0, None), (1, 16), (8, 16), (9, 32), (31, 64), (60, 64)])
def test_the_rank_leaves_room(number: int, rank: int | None) -> None:
    assert starting_rank([report(20, nature(number)), report()], width=64) == rank


def test_a_narrow_teacher_has_no_more_directions_than_its_width() -> None:
    assert starting_rank([report(20, nature(1))], width=8) == 8


def test_blocks_are_named_as_one_would() -> None:
    assert [name_blocks(n) for n in ([3], [3, 5], [0, 1, 2], [0, 2, 3])] == [
        "block 3",
        "blocks 3 and 5",
        "blocks 0 to 2",
        "blocks 0, 2 and 3",
    ]
