"""The directions of artifacts: found where they are, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from singer_ray.config import Config
from singer_ray.errors import UserError
from singer_ray.method.refiners.singer.adapter import SpectralAdapter
from singer_ray.method.spectral import ArtifactDirections, artifact_directions, in_words
from singer_ray.training.context import TrainContext
from singer_ray.training.trainer import StudentTrainer
from singer_ray.vision.tapped import TappedViT

DIM, IMAGES, PATCHES = 32, 32, 49


def normal(seed: int = 0) -> torch.Tensor:
    """[images, patches, dim] with what real features share: a mean, positions, clusters, massive channels."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.logspace(0.5, -0.5, DIM)
    tokens = torch.randn(IMAGES, PATCHES, DIM, generator=generator) * spread
    tokens += 3 * torch.randn(DIM, generator=generator)
    tokens += 1.5 * torch.randn(1, PATCHES, DIM, generator=generator)
    tokens[:, :, 5] += 40 + 5 * torch.randn(IMAGES, PATCHES, generator=generator)
    clusters = 2 * torch.randn(4, DIM, generator=generator)
    return tokens + clusters[torch.randint(4, (IMAGES, PATCHES), generator=generator)]


def planted(share: float, number: int, *, ratio: float = 8.0, signs: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Normal tokens, `share` of which have an artifact along one of `number` directions; and those directions."""
    tokens, generator = normal(), torch.Generator().manual_seed(1)
    axes = torch.linalg.qr(torch.randn(DIM, number, generator=generator)).Q
    size = ratio * tokens.norm(dim=-1).median()
    hit = torch.rand(IMAGES, PATCHES, generator=generator) < share
    which = torch.randint(number, (IMAGES, PATCHES), generator=generator)
    length = size * (0.7 + 0.6 * torch.rand(IMAGES, PATCHES, generator=generator)) * hit
    if signs:
        length *= torch.where(torch.rand(IMAGES, PATCHES, generator=generator) < 0.5, -1.0, 1.0)
    return tokens + length[..., None] * axes.T[which], axes


def removed(tokens: torch.Tensor, found: ArtifactDirections) -> torch.Tensor:
    return tokens - (tokens - found.centre) @ found.basis @ found.basis.T


@pytest.mark.parametrize("signs", [False, True])
@pytest.mark.parametrize(
    ("share", "number"),
    [(0.01, 1), (0.04, 1), (0.04, 3), *((share, number) for share in (0.15, 0.3, 0.5) for number in (1, 3, 8))],
)
def test_planted_directions_are_found_and_taken_out(share: float, number: int, signs: bool) -> None:
    tokens, axes = planted(share, number, signs=signs)
    found = artifact_directions(tokens, 16)
    assert found.number == number
    assert found.left == 0
    assert torch.linalg.svdvals(axes.T @ found.basis).min() > 0.99
    assert found.share == pytest.approx(share, rel=0.25)
    clean, norms = removed(tokens, found), removed(tokens, found).norm(dim=-1)
    assert norms.max() < 1.6 * norms.median()
    across = torch.eye(DIM) - axes @ axes.T  # what no artifact touched is as it was
    assert ((clean - normal()) @ across).norm() < 0.08 * (normal() @ across).norm()


def test_half_of_the_tokens_of_every_image_may_be_artifacts() -> None:
    tokens, axes = planted(1.0, 1)
    tokens[:, ::2] = normal()[:, ::2]
    found = artifact_directions(tokens, 4)
    assert found.number == 1
    assert (axes.T @ found.basis).abs().item() > 0.99


@pytest.mark.parametrize("seed", range(5))
def test_shared_directions_are_no_artifacts(seed: int) -> None:
    found = artifact_directions(normal(seed), 16)
    assert (found.number, found.left, found.blind) == (0, 0, False)


def test_a_few_long_tokens_without_a_direction_of_their_own_are_left_alone() -> None:
    tokens = normal()
    generator = torch.Generator().manual_seed(3)
    for image in range(IMAGES):
        lone = torch.randn(DIM, generator=generator)
        tokens[image, 0] = lone / lone.norm() * 3 * tokens.norm(dim=-1).median()
    assert artifact_directions(tokens, 16).number <= 2  # in 32 dimensions, 32 random tokens share a direction at times


def test_artifacts_of_one_image_alone_say_nothing_about_the_teacher() -> None:
    tokens, axes = normal(), torch.eye(DIM)[0]
    tokens[0, :12] += 8 * tokens.norm(dim=-1).median() * axes
    assert artifact_directions(tokens, 16).number == 0
    tokens[:6, :2] += 8 * tokens.norm(dim=-1).median() * axes
    assert artifact_directions(tokens, 16).number == 1


def test_a_rank_below_the_number_of_directions_says_how_many_stay() -> None:
    tokens, _ = planted(0.15, 5)
    found = artifact_directions(tokens, 3)
    assert (found.number, found.left) == (3, 2)
    assert "3 artifact directions" in in_words(found, 3)
    assert "2 more stay in the features, since method.rank is 3" in in_words(found, 3)


def test_a_teacher_whose_every_image_is_artifacts_is_told() -> None:
    tokens, _ = planted(0.95, 3)
    found = artifact_directions(tokens, 16)
    assert found.blind or found.number == 0
    assert found.blind
    assert "cannot be told" in in_words(found, 16)


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "deit3_small_patch16_224",
        "deit_tiny_distilled_patch16_224",
        "beit_base_patch16_224",
        "vit_small_patch14_dinov2",
        "vit_small_patch16_dinov3",
        "eva02_tiny_patch14_224",
        "vit_base_patch16_clip_224",
        "vit_base_patch16_siglip_224",
        "vit_little_patch16_reg4_gap_256",
    ],
)
def test_random_weights_have_no_artifacts(name: str) -> None:
    torch.manual_seed(0)
    make: Any = timm.create_model
    sizes = {"patch14_dinov2": 56, "patch14": 56}
    size = next((pixels for part, pixels in sizes.items() if part in name), 64)
    model = make(name, img_size=size, embed_dim=48, depth=4, num_heads=4, num_classes=0).eval()
    teacher = TappedViT(model, range(4))
    with torch.no_grad():
        features = teacher(torch.rand(16, 3, size, size))
    for tokens in features.tokens.values():
        assert artifact_directions(tokens[:, teacher.prefix :], 16).number == 0


@pytest.mark.parametrize(("teacher", "number"), [("demo", 3), ("demo-clean", 0)])
def test_the_demonstration_has_the_directions_that_were_planted(small: Config, teacher: str, number: int) -> None:
    config = small.override({"teacher.name": teacher, "data.scenes.train_images": 512})
    context = TrainContext(config)
    trainer = StudentTrainer(context, config)
    lines: list[str] = []
    trainer.observe(lines.append)
    assert [adapter.number for adapter in adapters(trainer)] == [number, number]
    assert any(line.startswith(f"layer 3: {number or 'no'} artifact directions") for line in lines)
    pixels = context.pixels(next(context.batches(batch_size=32, seed=5)))
    features = context.teacher_pass(trainer.teacher, pixels)
    refined, terms = trainer.distiller.refiner.refine(features, trainer.teacher.replay)
    assert terms == {}
    for layer, tokens in refined.items():
        assert torch.equal(tokens[:, :1], features.tokens[layer][:, :1])
        norms = tokens[:, 1:].norm(dim=-1)
        assert (norms.amax(dim=1) / norms.median(dim=1).values).mean() < 2
        if not number:  # exactly as they are, without the radial part too
            assert torch.equal(trainer.distiller.target(layer, features.tokens[layer]), features.tokens[layer])


def test_fewer_directions_are_taken_out_when_the_rank_says_so(small: Config) -> None:
    config = small.override({"method.rank": 2})
    trainer = StudentTrainer(TrainContext(config), config)
    trainer.observe()
    assert [adapter.number for adapter in adapters(trainer)] == [2, 2]


def test_what_was_found_is_in_the_state_and_nothing_of_it_learns(small: Config) -> None:
    context = TrainContext(small)
    first = StudentTrainer.begin(context, small)
    again = StudentTrainer.begin(context, small, first.state())
    pixels = context.pixels(next(context.batches(batch_size=8, seed=0)))
    features = context.teacher_pass(first.teacher, pixels)
    assert [adapter.number for adapter in adapters(again)] == [3, 3]
    for layer in first.distiller.layers:
        assert torch.equal(
            first.distiller.target(layer, features.tokens[layer]), again.distiller.target(layer, features.tokens[layer])
        )
    assert not any(p.requires_grad for p in again.distiller.refiner.parameters())
    assert set(first.step(pixels, features)) == {"loss", "kd"}


@pytest.mark.slow
def test_it_can_be_fitted_further_and_only_along_what_was_found(small: Config) -> None:
    config = small.override({"method.freeze": False, "method.prefit.steps": 2, "method.prefit.batch_size": 8})
    context = TrainContext(config)
    trainer = StudentTrainer(context, config)
    trainer.observe()
    start = [adapter.phi_down.clone() for adapter in adapters(trainer)]
    trainer.prefit()
    trainer.start()
    for adapter, before in zip(adapters(trainer), start):
        assert not torch.equal(adapter.phi_down, before)
        assert adapter.phi_down[:, adapter.number :].abs().max() == 0
    pixels = context.pixels(next(context.batches(batch_size=8, seed=0)))
    losses = trainer.step(pixels, context.teacher_pass(trainer.teacher, pixels))
    assert set(losses) == {"loss", "kd", "outlier", "info"}


def adapters(trainer: StudentTrainer) -> list[SpectralAdapter]:
    found = list(trainer.distiller.refiner.get_submodule("adapters").children())
    assert all(isinstance(adapter, SpectralAdapter) for adapter in found)
    return [adapter for adapter in found if isinstance(adapter, SpectralAdapter)]


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_the_joint_variants_have_no_closed_form(variant: str) -> None:
    with pytest.raises(UserError, match=f"spectral.*variant {variant}"):
        Config().override({"method.variant": variant, "method.linearization": "spectral"})


def test_an_adapter_that_would_never_change_anything_is_refused() -> None:
    with pytest.raises(UserError, match="would never change anything"):
        Config().override({"method.linearization": "pca", "method.prefit.steps": 0})
