"""Students with register tokens: built, distilled, exported, read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from singer_ray.config import MethodConfig
from singer_ray.errors import UserError
from singer_ray.method.distiller import Distiller
from singer_ray.method.refiners.base import Refiner
from singer_ray.publishing.formats import onnx_available, write_onnx, write_program
from singer_ray.publishing.package import InputSpec, write_model
from singer_ray.vision.models import Normalization, create_student
from singer_ray.vision.networks import open_network
from singer_ray.vision.tapped import TappedViT

TINY: dict[str, Any] = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 4, "global_pool": "avg"}


def student(registers: int, name: str = "vit_tiny_patch16_224", **changes: Any) -> Any:
    torch.manual_seed(0)
    return create_student(name, 16, registers=registers, **{**TINY, **changes})


@pytest.mark.parametrize(
    ("name", "own", "prefix"),
    [
        ("vit_tiny_patch16_224", 0, 1),
        ("deit3_small_patch16_224", 0, 1),
        ("vit_small_patch14_reg4_dinov2", 4, 5),
        ("vit_small_patch16_dinov3", 4, 5),
        ("eva02_tiny_patch14_224", 0, 1),
    ],
)
def test_registers_stand_between_class_token_and_patches(name: str, own: int, prefix: int) -> None:
    plain, more = (TappedViT(student(count, name), [1]) for count in (0, 6))
    assert plain.prefix == prefix  # 0 keeps what the architecture has
    assert more.prefix == prefix - own + 6
    assert more.has_class_token
    tokens = more.eval()(torch.randn(2, 3, 16, 16)).tokens[1]
    assert tokens.shape == (2, more.prefix + 16, 16)


@pytest.mark.parametrize("name", ["beit_base_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_who_cannot_have_registers_is_named(name: str) -> None:
    said = rf"student.registers is 2, but {name} \(\w+\) cannot have register tokens"
    with pytest.raises(UserError, match=said):
        student(2, name)


def test_registers_do_not_reach_the_loss_and_the_class_token_does() -> None:
    """Every part of a token but the registers makes a difference, in its own place."""
    torch.manual_seed(1)
    teacher = TappedViT(student(2, embed_dim=24, num_heads=3), [0, 1]).eval()
    network = TappedViT(student(3), [0, 1]).eval()
    distiller = Distiller(
        network,
        (0, 1),
        teacher,
        (0, 1),
        Refiner(teacher, (0, 1), MethodConfig(refiner="none")),
        (teacher.grid(16), network.grid(16)),
    )
    images = torch.randn(2, 3, 16, 16)
    features, tokens = teacher(images), network(images).tokens[1]
    losses = distiller.token_losses(images, features)[1]
    assert losses.shape == (2, 1 + 16)
    projection: Any = distiller.projections["1"]
    wanted = distiller.scales[1] * features.tokens[1]
    for place, (own, theirs) in {0: (0, 0), 1: (4, 3), 16: (19, 18)}.items():
        expected = (projection(tokens[:, own]) - wanted[:, theirs]).square().mean(dim=-1)
        torch.testing.assert_close(losses[:, place], expected)
    torch.testing.assert_close(distiller.projected(1, tokens) * distiller.scales[1], projection(tokens[:, 4:]))


def written(folder: Path, model: Any) -> Path:
    write_model(folder, model.eval(), InputSpec(16, 1.0, Normalization((0.5,) * 3, (0.5,) * 3)))
    return folder


def test_timm_loads_an_exported_student_with_its_registers(tmp_path: Path) -> None:
    model = student(3)
    loaded: Any = timm.create_model(f"local-dir:{written(tmp_path / 'it', model)}", pretrained=True).eval()
    images = torch.randn(2, 3, 16, 16)
    assert loaded.num_prefix_tokens == 4
    assert torch.equal(loaded.forward_features(images), model.forward_features(images))
    assert torch.equal(loaded(images), model.forward_features(images)[:, 4:].mean(dim=1))  # pooled without them
    network = open_network(str(tmp_path / "it"))
    assert (network.tapped.prefix, network.grid) == (4, (4, 4))


@pytest.mark.long
def test_other_runtimes_give_the_same_tokens(tmp_path: Path) -> None:
    model, images = student(3), torch.randn(5, 3, 16, 16)
    folder = written(tmp_path / "it", model)
    write_program(folder)
    tokens, _ = torch.export.load(folder / "model.pt2").module()(images)
    torch.testing.assert_close(tokens, model.forward_features(images), atol=1e-5, rtol=1e-5)
    if onnx_available():
        write_onnx(folder)  # compares its own outputs with torch's
        assert (folder / "model.onnx").is_file()
