"""The verdict says what the figures say."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

import pytest

from singer_ray.analysis.artifacts import LayerReport
from singer_ray.analysis.gradient_bias import GradientBias
from singer_ray.analysis.verdict import Verdict, judge
from singer_ray.config import Config
from tests.analysis.test_remedy import nature, report

LAYERS = (3, 5)


def bias(share: float) -> GradientBias:
    return GradientBias(share, share, 0.0, {3: share, 5: share})


def verdict(reports: Mapping[int, LayerReport], **shares: float) -> Verdict:
    track = [(0, {name: bias(share) for name, share in shares.items()})]
    return judge("x", reports, LAYERS, track, k=4.0, width=64)


def test_artifacts_that_a_refiner_removes() -> None:
    found = verdict({3: report(20, nature(3)), 5: report(10, nature(1))}, none=0.8, singer=0.2)
    assert (found.artifacts, found.biased, found.remedy) == (True, True, True)
    assert (found.refiner, found.rank, found.block, found.directions) == ("singer", 16, 3, 3)
    assert "has artifacts: at block 3, 5.0 % of the patch tokens" in found.text
    assert "3 directions of 10 % of the tokens at block 3, 1 direction of 10 % of the tokens at block 5" in found.text
    assert "from 80 % to 20 %, so it is worth trying" in found.text
    assert found.text.endswith(found.why)
    assert "--method.rank 16" in found.why


def test_a_refiner_that_leaves_them_is_no_remedy() -> None:
    found = verdict({3: report(20, nature(3)), 5: report(10, nature(3))}, none=0.8, singer=0.78)
    assert found.remedy is False
    assert "no remedy" in found.text
    assert "worth trying" not in found.text


def test_without_a_refiner_no_remedy_was_tried() -> None:
    found = verdict({3: report(20, nature(3)), 5: report(10, nature(3))}, none=0.8)
    assert found.remedy is None
    assert "No refiner was tried" in found.text
    assert found.refiner == "singer"


def test_artifacts_without_weight_do_not_bias() -> None:
    found = verdict({3: report(20, nature(3)), 5: report(10, nature(3))}, none=0.1, singer=0.1)
    assert (found.artifacts, found.biased, found.remedy, found.refiner) == (True, False, None, "none")
    assert "They do not bias distillation here" in found.text
    assert "--method.rank" not in found.text


@pytest.mark.parametrize("size", [1.3, 4.0])
def test_a_teacher_without_artifacts_is_told_so(size: float) -> None:
    found = verdict({3: report(size), 5: report(size)}, none=0.0, singer=0.0)
    assert (found.artifacts, found.biased, found.remedy, found.rank) == (False, False, None, None)
    assert (found.refiner, found.why, found.blocks) == ("none", "", [])
    assert "no artifacts" in found.text
    assert "refinement will not help" in found.text


def test_artifacts_at_other_layers_are_mentioned() -> None:
    found = verdict({2: report(30, nature(2)), 3: report(), 5: report()}, none=0.0)
    assert not found.artifacts
    assert found.blocks == [2]
    assert "Other layers do have artifacts: block 2." in found.text


def test_artifacts_that_are_half_of_all_tokens_are_seen_without_their_norms() -> None:
    half = report(1.2, nature(2, token_share=0.5))
    found = verdict({3: half, 5: half}, none=0.0, singer=0.0)
    assert (found.artifacts, found.biased, found.refiner, found.token_share) == (True, None, "singer", 0.5)
    assert "artifacts that norms do not show: at block 3, 50 % of the patch tokens" in found.text
    assert "bias distillation" not in found.text  # which tokens they are is told by norms


def test_a_teacher_of_artifacts_is_told_what_to_do() -> None:
    found = verdict({1: report(), 3: report(2, nature(blind=True)), 5: report()}, none=0.0, singer=0.0)
    assert (found.artifacts, found.refiner, found.block) == (True, "layernorm", 3)
    assert "has more artifacts than normal tokens, or some very short ones: at block 3" in found.text
    assert "blocks 1 and 5 can be read" in found.text


@pytest.mark.parametrize(
    ("having", "sentence"),
    [
        ((2, 3, 4, 5), "They begin at block 2 and last to the end."),
        ((2, 3, 4), "They begin at block 2 and are gone behind block 4: of the distilled blocks, block 5 has none"),
        ((5,), "Only the last block has them: of the distilled blocks, block 3 has none, and --teacher.layers 3 alone"),
    ],
)
def test_it_says_in_which_blocks_they_are(having: tuple[int, ...], sentence: str) -> None:
    reports = {n: report(20, nature(3)) if n in having else report() for n in range(6)}
    found = verdict(reports, none=0.8)
    assert sentence in found.text
    assert found.blocks == list(having)


def test_it_says_whether_they_keep_to_places_and_what_that_means() -> None:
    fixed = verdict({3: report(20, nature(3, recurrence=0.9)), 5: report()}, none=0.8)
    assert fixed.locked
    assert "keep to the same places in most images (recurrence 0.90" in fixed.text
    assert "averaged over shifted views" in fixed.text
    free = verdict({3: report(20, nature(3, recurrence=0.1)), 5: report()}, none=0.8)
    assert not free.locked
    assert "follow the content rather than the place (recurrence 0.10" in free.text


def test_it_names_massive_channels() -> None:
    found = verdict({3: report(20, nature(1, channel=(17, 0.92))), 5: report()}, none=0.8)
    assert found.channel == 17
    assert "little else than channel 17 (92 % of its square)" in found.text
    shared = verdict({3: report(1.2, nature(common_channel=(5, 0.8))), 5: report(1.2)}, none=0.0)
    assert shared.channel is None
    assert "Channel 5 holds 80 % of the energy of normal tokens" in shared.text


def test_it_says_what_the_final_norm_does() -> None:
    evened = verdict({3: report(), 5: report(20, nature(1), after_norm=1.3)}, none=0.8)
    assert "The final norm evens out lengths (the largest token is 20.0 x the median before it and 1.3 x" in evened.text
    kept = verdict({3: report(), 5: report(20, nature(1), after_norm=15.0)}, none=0.8)
    assert "The final norm does not even them out" in kept.text
    assert "final norm" not in verdict({3: report(), 5: report(20, nature(1))}, none=0.8).text


def test_every_setting_that_it_names_exists() -> None:
    odd = nature(3, recurrence=0.9, channel=(1, 0.9), common_channel=(2, 0.9))
    cases = [{3: report(), 5: report(20, of, 1.2)} for of in (nature(), nature(3), nature(30), nature(blind=True), odd)]
    texts = [verdict(case, none=share).text for case in cases for share in (0.8, 0.1)]
    named = {name for text in texts for name in re.findall(r"--([a-z_.]*[a-z])", text)}
    assert named == {"method.refiner", "method.rank", "method.wrapper", "method.target", "teacher.layers"}
    for name in named:
        functools.reduce(getattr, name.split("."), Config())
