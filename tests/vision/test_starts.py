"""student.pretrained and student.checkpoint: students that start from given weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch

from singer_ray.config import Config, load_preset
from singer_ray.errors import UserError
from singer_ray.method.layers import map_by_depth
from singer_ray.publishing.package import InputSpec, write_model
from singer_ray.training.context import TrainContext
from singer_ray.training.trainer import StudentTrainer
from singer_ray.vision.models import Normalization
from singer_ray.vision.students import build_student, check_start, start_student
from singer_ray.vision.tapped import TappedViT

TINY: dict[str, Any] = {"embed_dim": 16, "depth": 2, "num_heads": 2}
SIZES = {"student.width": 16, "student.depth": 2, "student.heads": 2, "student.patch_size": 4, "data.image_size": 16}


def given(**changes: Any) -> Any:
    """A network that was trained before, with a head."""
    torch.manual_seed(1)
    make: Any = timm.create_model
    model = make(
        "vit_tiny_patch16_224", **{"img_size": 16, "patch_size": 4, "num_classes": 7, **TINY, **changes}
    ).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return model


def file_of(model: Any, path: Path) -> str:
    safetensors.torch.save_file(model.state_dict(), path)
    return str(path)


def package_of(model: Any, folder: Path) -> str:
    write_model(folder, model, InputSpec(model.patch_embed.img_size[0], 1.0, Normalization((0.1,) * 3, (0.2,) * 3)))
    return f"local-dir:{folder}"


def config(**changes: Any) -> Config:
    return load_preset("demo").override({**SIZES, **{k.replace("__", "."): v for k, v in changes.items()}})


def started(settings: Config) -> Any:
    """The student of a configuration, filled with what it starts from."""
    torch.manual_seed(2)
    model = build_student(settings)
    tapped = TappedViT(model, [0], name=f"student {settings.student.name}")
    start_student(settings, tapped, tapped, map_by_depth)
    return model.eval()


def from_package(folder: str, **changes: Any) -> Config:
    """Of what is published in a folder: its own sizes."""
    none = {name: None for name in SIZES if name.startswith("student.")}
    return config(student__name=folder, student__pretrained=True).override({**none, **changes})


IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_weights_that_give_no_numbers_are_refused(tmp_path: Path) -> None:
    model = given()
    model.blocks[1].mlp.fc2.bias.data[3] = torch.nan
    with pytest.raises(UserError, match="student vit_tiny_patch16_224 gives features that are not finite"):
        started(config(student__checkpoint=file_of(model, tmp_path / "it.safetensors")))


def test_both_start_with_the_given_features(tmp_path: Path) -> None:
    model = given()
    wanted = model.forward_features(IMAGES)
    for settings in (
        config(student__checkpoint=file_of(model, tmp_path / "it.safetensors")),
        from_package(package_of(model, tmp_path / "package")),
    ):
        student = started(settings)
        assert student.num_classes == 0
        assert torch.equal(student.forward_features(IMAGES), wanted)


def test_a_norm_behind_the_pooling_becomes_the_final_norm(tmp_path: Path) -> None:
    model = given(global_pool="avg")
    assert isinstance(model.norm, torch.nn.Identity)
    wanted = model.fc_norm(model.forward_features(IMAGES))
    for settings in (
        config(student__checkpoint=file_of(model, tmp_path / "it.safetensors")),
        from_package(package_of(model, tmp_path / "package")),
    ):
        assert torch.equal(started(settings).forward_features(IMAGES), wanted)


def test_other_images_and_patches_are_resampled_as_timm_does(tmp_path: Path) -> None:
    model = given()
    file, package = file_of(model, tmp_path / "it.safetensors"), package_of(model, tmp_path / "package")
    sizes = {"student.patch_size": 8, "data.image_size": 32}
    make: Any = timm.create_model
    wanted = make(package, pretrained=True, img_size=32, patch_size=8, num_classes=0).eval()
    images = torch.randn(2, 3, 32, 32)
    for settings in (config(student__checkpoint=file).override(sizes), from_package(package, **sizes)):
        assert torch.equal(started(settings).forward_features(images), wanted.forward_features(images))


@pytest.mark.parametrize("kind", ["file", "package"])
def test_registers_may_be_added_to_given_weights(kind: str, tmp_path: Path) -> None:
    model = given()
    settings = (
        config(student__checkpoint=file_of(model, tmp_path / "it.safetensors"))
        if kind == "file"
        else from_package(package_of(model, tmp_path / "package"))
    ).override({"student.registers": 3})
    torch.manual_seed(2)
    fresh: Any = build_student(settings)
    student = started(settings)
    assert torch.equal(student.reg_token, fresh.reg_token)
    assert torch.equal(student.pos_embed[:, 1:4], fresh.pos_embed[:, 1:4])
    assert torch.equal(student.pos_embed[:, [0, *range(4, 20)]], model.pos_embed)
    assert torch.equal(student.blocks[1].mlp.fc1.weight, model.blocks[1].mlp.fc1.weight)
    # Weights that have registers come with them.
    again = config(student__checkpoint=file_of(student, tmp_path / "with.safetensors"), student__registers=3)
    assert torch.equal(started(again).forward_features(IMAGES), student.forward_features(IMAGES))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"depth": 3}, r"has 3 blocks, and student vit_tiny_patch16_224 has 2"),
        (
            {"embed_dim": 24},
            r"does not fit student vit_tiny_patch16_224: cls_token is 1 x 1 x 24 in the file and 1 x 1",
        ),
        ({"init_values": 0.1, "qkv_bias": False}, r"lacks 2 of the \d+ weights of .*blocks.0.attn.qkv.bias, blocks.1"),
        ({"reg_tokens": 2}, r"does not fit .*pos_embed|has .*reg_token|grid"),
    ],
)
def test_a_file_of_another_architecture_is_refused_with_what_differs(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = file_of(given(**changes), tmp_path / "it.safetensors")
    with pytest.raises(UserError, match=rf"student.checkpoint '{path}' .*{said}") as refused:
        started(config(student__checkpoint=path))
    assert "\n" not in str(refused.value)
    assert "--student.name" in str(refused.value)
    assert "teacher" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"student.width": 48, "student.heads": 3}, "cls_token is 1 x 1 x 192 in it and 1 x 1 x 48 in the model"),
        ({"student.depth": 6}, "has 12 blocks, and student vit_tiny_patch16_224.augreg_in21k has 6"),
        ({"student.heads": 6}, "has 3 attention heads, and the student 6"),
        ({"student.patch_size": 8, "student.registers": 4}, None),
        ({"student.name": "vit_base_patch16_gap_224"}, "has no published weights"),
    ],
)
def test_what_is_published_of_another_size_is_refused_before_it_is_fetched(
    settings: dict[str, Any], said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda *_, **__: pytest.fail("weights were fetched"))
    plain = {name: None for name in SIZES if name.startswith("student.")}
    named = config().override(
        {**plain, "student.name": "vit_tiny_patch16_224.augreg_in21k", "student.pretrained": True, **settings}
    )
    tapped: Any = None
    if said is None:
        check_start(named, tapped, tapped)
        return
    with pytest.raises(UserError, match=said) as refused:
        check_start(named, tapped, tapped)
    assert "\n" not in str(refused.value)


def test_a_trainer_starts_from_them_unless_it_is_resumed(small: Config, tmp_path: Path) -> None:
    model = given(img_size=32, embed_dim=48, depth=3, num_heads=3)
    path = tmp_path / "it.safetensors"
    settings = small.override({"student.checkpoint": file_of(model, path), "method.refiner": "none"})
    context = TrainContext(settings)
    trainer = StudentTrainer.begin(context, settings)
    block: Any = trainer.distiller.student.blocks[2]
    assert torch.equal(block.attn.proj.weight, model.blocks[2].attn.proj.weight)
    state = trainer.state()
    path.unlink()  # a resume needs it no more
    assert StudentTrainer.begin(context, settings, state).step_count == 0
    with pytest.raises(UserError, match="is not a file"):
        StudentTrainer(context, settings)


def test_weights_of_another_input_scaling_are_told(small: Config, tmp_path: Path) -> None:
    package = package_of(given(img_size=32, embed_dim=48, depth=3, num_heads=3), tmp_path / "package")
    sizes = {name: None for name in SIZES if name.startswith("student.")}
    settings = small.override({**sizes, "student.name": package, "student.pretrained": True})
    (line,) = [line for line in StudentTrainer(TrainContext(settings), settings).remarks if "were trained with" in line]
    assert "mean (0.1, 0.1, 0.1) and standard deviation (0.2, 0.2, 0.2)" in line


@pytest.mark.parametrize(
    "settings",
    [
        {"student.init": "copy", "student.pretrained": True},
        {"student.init": "copy", "student.checkpoint": "x.pth"},
        {"student.pretrained": True, "student.checkpoint": "x.pth"},
    ],
)
def test_two_starts_contradict_each_other(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"student\.\S+( copy)? and student\.\S+ each say what the student's weights"):
        config().override(settings)
