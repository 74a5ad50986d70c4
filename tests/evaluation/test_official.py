"""The recipe of the paper's code, against figures worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from singer_ray.config import OfficialConfig
from singer_ray.evaluation.features import Annotations, PixelAnnotations, ProbeFeatures
from singer_ray.evaluation.official import (
    DenseHead,
    Diverged,
    OfficialHeads,
    Task,
    bin_depth,
    decode_depth,
    depth_scores,
    train_head,
)
from singer_ray.evaluation.patch_targets import IGNORE

CPU = torch.device("cpu")


def test_depth_is_binned_and_clamped() -> None:
    depth = torch.tensor([-1.0, 0.0, 5.0, 7.3, 10.0, 12.0])
    assert bin_depth(depth, 10.0).tolist() == [0, 0, 128, 186, 255, 255]  # 127.5 goes to the even neighbour


def test_soft_decoding_is_a_mean_over_bins_at_temperature_three_hundredths() -> None:
    shares = torch.tensor([0.5, 0.2, 0.3])
    logits = (0.03 * shares.log()).view(1, 3, 1, 1)
    assert float(decode_depth(logits, 10.0)) == pytest.approx(0.2 * 5 + 0.3 * 10)


def test_depth_scores_pool_valid_pixels_and_average_images() -> None:
    target = torch.tensor([[[1.0, 2.0]], [[4.0, 0.0]]])
    guess = torch.tensor([[[1.2, 5.0]], [[4.0, 3.0]]])
    scores = depth_scores(guess, target, 10.0)
    # The pixel without depth counts in the figure by image only.
    assert scores["depth_rmse"] == pytest.approx(math.sqrt((0.04 + 9 + 0) / 3))
    assert scores["depth_rmse_per_image"] == pytest.approx((math.sqrt(9.04 / 2) + math.sqrt(9 / 2)) / 2)
    assert scores["depth_delta1"] == pytest.approx(2 / 3)
    assert scores["depth_rel"] == pytest.approx((0.2 + 1.5 + 0) / 3)


def test_upsampled_logits_are_the_logits_of_upsampled_features() -> None:
    torch.manual_seed(0)
    head, tokens = DenseHead(5, 7, (2, 3), 12), torch.randn(2, 6, 5)
    plane = tokens.mT.reshape(2, 5, 2, 3)
    large = functional.interpolate(plane, size=(12, 12), mode="bilinear", align_corners=False)
    assert torch.allclose(head(tokens), head.convolution(large), atol=1e-5)
    # Row 0 of the image is nearest to row 0 of the grid, whose columns come in order.
    assert torch.allclose(head(tokens)[0, :, 0, 0], head.convolution(plane)[0, :, 0, 0], atol=1e-6)
    assert torch.allclose(head(tokens)[0, :, 0, -1], head.convolution(plane)[0, :, 0, 2], atol=1e-6)


def task(*, part: int = 100, scripted: list[float] | None = None) -> tuple[Task, list[nn.Module], list[torch.Tensor]]:
    """A linear head on 6 inputs; with `scripted` validation scores."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(6, 3, generator=generator), torch.tensor([0, 1, 1, 0, 1, 0])
    heads: list[nn.Module] = []
    seen: list[torch.Tensor] = []

    def make() -> nn.Module:
        heads.append(nn.Linear(3, 2))
        return heads[-1]

    def score(head: nn.Module, split: str) -> dict[str, float]:
        weight = next(head.parameters()).detach().clone()
        if split == "val":
            seen.append(weight)
        value = scripted[len(seen) - 1] if scripted and len(seen) <= len(scripted) else float(weight.sum())
        return {"score": value}

    both = {"train": x, "val": x, "test": x}
    return (Task("toy", make, both, dict.fromkeys(both, y), score, lambda scores: scores["score"], part), heads, seen)


def test_a_step_is_plain_sgd_with_weight_decay() -> None:
    toy, heads, _ = task()
    settings = OfficialConfig(epochs=1, batch_size=6, lr=0.5, weight_decay=0.1)
    train_head(toy, [], settings, 3, CPU)
    torch.manual_seed(0)
    trained = heads[0]
    train_head(toy, [], settings.model_copy(update={"lr": 1e-12}), 3, CPU)
    start = heads[1]
    loss = functional.cross_entropy(start(toy.inputs["train"]), toy.targets["train"])
    for before, after in zip(start.parameters(), trained.parameters(), strict=True):
        (gradient,) = torch.autograd.grad(loss, before, retain_graph=True)
        assert torch.allclose(after, before - 0.5 * (gradient + 0.1 * before), atol=1e-6)


def test_a_second_step_has_no_momentum_and_the_cosine_of_half_time() -> None:
    toy, heads, _ = task()
    settings = OfficialConfig(epochs=2, batch_size=6, lr=0.5, weight_decay=0.0)
    train_head(toy, [], settings, 3, CPU)
    train_head(toy, [], settings.model_copy(update={"lr": 1e-12}), 3, CPU)
    weight, bias = (p.detach().clone() for p in heads[1].parameters())
    for rate in (0.5, 0.25):
        weight, bias = weight.requires_grad_(), bias.requires_grad_()
        loss = functional.cross_entropy(toy.inputs["train"] @ weight.mT + bias, toy.targets["train"])
        steps = torch.autograd.grad(loss, (weight, bias))
        weight, bias = (weight - rate * steps[0]).detach(), (bias - rate * steps[1]).detach()
    assert torch.allclose(next(heads[0].parameters()), weight, atol=1e-5)


def test_parts_of_a_batch_add_up_to_it() -> None:
    ended = []
    for part in (100, 1):
        toy, heads, _ = task(part=part)
        train_head(toy, [], OfficialConfig(epochs=3, batch_size=4), 3, CPU)
        ended.append(next(heads[0].parameters()).detach())
    assert torch.allclose(ended[0], ended[1], atol=1e-6)


def test_best_is_the_epoch_with_the_best_validation_score_and_last_the_last() -> None:
    toy, heads, seen = task(scripted=[0.1, 0.9, 0.3, 0.9])
    metrics = train_head(toy, ["val", "test"], OfficialConfig(epochs=4, batch_size=2), 0, CPU)
    assert set(metrics) == {f"{s}/official/score/{w}" for s in ("val", "test") for w in ("last", "best")}
    assert metrics["test/official/score/last"] == pytest.approx(float(seen[3].sum()))
    assert metrics["test/official/score/best"] == pytest.approx(float(seen[1].sum()))  # the first of equals
    assert not torch.equal(seen[1], seen[3])
    assert torch.equal(next(heads[0].parameters()), seen[1])


def test_without_validation_images_there_is_no_best() -> None:
    toy, _, _ = task()
    metrics = train_head(toy, ["test"], OfficialConfig(epochs=1), 0, CPU)
    assert set(metrics) == {"test/official/score/last"}


def test_a_loss_that_is_not_finite_is_told() -> None:
    toy, _, _ = task()
    with pytest.raises(Diverged, match=r"epoch \d"):
        train_head(toy, [], OfficialConfig(epochs=5, batch_size=1, lr=1e38), 0, CPU)


def planes(seed: int, *, spoil: bool = False) -> tuple[ProbeFeatures, Annotations, PixelAnnotations]:
    """Patch tokens that say which of two classes, and which depth, their quarter of the image has."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randint(2, (24, 4), generator=generator)
    patches = functional.one_hot(kinds, 2).float() * 4
    large = kinds.view(24, 2, 2).repeat_interleave(4, 1).repeat_interleave(4, 2)
    mask = large.to(torch.int16)
    mask[:, 3:5] = IGNORE
    if spoil:
        mask[mask == IGNORE] = 1
    token = functional.one_hot(kinds[:, 0], 2).float() * 4
    known = Annotations(kinds[:, 0], None, None)
    return ProbeFeatures(patches.mean(1), patches, token), known, PixelAnnotations(mask, 2.0 + 6.0 * large.float())


def official(*, spoil: bool = False, mode: str = "cls") -> dict[str, float]:
    settings = OfficialConfig(epochs=25, batch_size=8, mode=mode, max_depth=10.0)
    found = {split: planes(seed, spoil=spoil) for split, seed in (("train", 0), ("val", 1))}
    heads = OfficialHeads(2, 2, (2, 2), 8, settings, CPU)
    metrics, notes = heads.run(
        {split: features for split, (features, _, _) in found.items()},
        {split: known for split, (_, known, _) in found.items()},
        {split: pixels for split, (_, _, pixels) in found.items()},
        ["val"],
    )
    assert notes == []
    return metrics


@pytest.mark.slow
def test_the_three_heads_learn_what_their_tokens_say() -> None:
    metrics = official()
    names = ("top1", "miou", "depth_rmse", "depth_rmse_per_image", "depth_delta1", "depth_rel")
    assert set(metrics) == {f"val/official/{name}/{which}" for name in names for which in ("last", "best")}
    assert metrics["val/official/top1/last"] == 1.0
    assert metrics["val/official/miou/best"] > 0.8
    assert metrics["val/official/depth_rmse/best"] < 2.0  # a constant guess is off by 3
    assert metrics == official()


def test_the_classification_head_reads_the_token_that_the_mode_names() -> None:
    # The class is that of the first quarter: the class token says it, the mean of four patches does not.
    assert official(mode="avg")["val/official/top1/last"] < 1.0


@pytest.mark.slow
def test_ignored_pixels_teach_and_count_nothing() -> None:
    assert official()["val/official/miou/last"] > official(spoil=True)["val/official/miou/last"] + 0.05
