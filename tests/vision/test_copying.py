"""student.init copy: blocks and leading channels of the teacher."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from singer_ray.config import Config
from singer_ray.errors import UserError
from singer_ray.method.layers import map_by_depth
from singer_ray.training.context import TrainContext
from singer_ray.training.trainer import StudentTrainer
from singer_ray.vision.copying import check_copy, copy_teacher
from singer_ray.vision.tapped import TappedViT

VIT = "vit_tiny_patch16_224"
TEACHER: dict[str, Any] = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 4, "num_heads": 4}


def network(seed: int, name: str = VIT, role: str = "student", **changes: Any) -> TappedViT:
    """With every weight moved, so that no two parts are alike."""
    torch.manual_seed(seed)
    make: Any = timm.create_model
    model = make(name, num_classes=0, **{**TEACHER, **changes}).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return TappedViT(model, range(len(model.blocks)), name=f"{role} {name}")


def block(network: TappedViT, number: int) -> Any:
    return network.blocks[number]


def copied(student: TappedViT, teacher: TappedViT) -> TappedViT:
    copy_teacher(student, teacher, map_by_depth(range(student.depth), student.depth, teacher.depth))
    return student


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (VIT, {}),
        (VIT, {"init_values": 0.1, "qk_norm": True, "pre_norm": True}),
        (VIT, {"no_embed_class": True, "reg_tokens": 2}),
        (VIT, {"class_token": False, "global_pool": "avg"}),
        ("deit_tiny_distilled_patch16_224", {}),
        ("beit_base_patch16_224", {}),
        ("vit_giant_patch14_dinov2", {"mlp_ratio": 4.0}),
        ("eva02_tiny_patch14_224", {}),
        ("vit_small_patch16_dinov3", {}),
    ],
)
def test_a_student_of_the_teachers_size_has_its_features(name: str, changes: dict[str, Any]) -> None:
    teacher, student = network(0, name, **changes), network(1, name, **changes)
    images = torch.randn(2, 3, 16, 16)
    before = teacher(images).tokens
    assert not torch.allclose(student(images).tokens[3], before[3], atol=0.1)
    after = copied(student, teacher)(images).tokens
    for layer, tokens in before.items():
        assert torch.equal(after[layer], tokens)
    assert torch.equal(teacher(images).tokens[3], before[3])


@pytest.mark.parametrize(("own", "teachers"), [(False, True), (True, False)])
def test_positions_of_prefix_tokens_may_be_apart_or_within_them(own: bool, teachers: bool) -> None:
    student, teacher = (network(n, no_embed_class=kind, reg_tokens=2) for n, kind in enumerate((own, teachers)))
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(copied(student, teacher)(images).tokens[3], teacher(images).tokens[3])


def test_registers_that_the_teacher_lacks_stay_as_they_are() -> None:
    student, teacher = network(1, reg_tokens=3), network(0)
    own = {name: weight.clone() for name, weight in student.model.state_dict().items()}
    copied(student, teacher)
    assert torch.equal(student.model.reg_token, own["reg_token"])
    assert torch.equal(student.model.pos_embed[:, 1:4], own["pos_embed"][:, 1:4])
    assert torch.equal(student.model.pos_embed[:, :1], teacher.model.pos_embed[:, :1])
    assert torch.equal(student.model.pos_embed[:, 4:], teacher.model.pos_embed[:, 1:])


def test_blocks_are_those_of_the_same_relative_depth() -> None:
    student, teacher = copied(network(1, depth=2), teacher := network(0)), teacher
    for own, theirs in ((0, 1), (1, 3)):  # (n + 1) / depth
        assert torch.equal(block(student, own).mlp.fc1.weight, block(teacher, theirs).mlp.fc1.weight)


def test_a_narrower_student_takes_whole_heads() -> None:
    """Half as wide with half the heads: what its first block computes from leading channels is two of four heads."""
    teacher = network(0)
    student = copied(network(1, embed_dim=16, num_heads=2), teacher)
    qkv, full = block(student, 0).attn.qkv.weight, block(teacher, 0).attn.qkv.weight
    assert torch.equal(qkv.view(3, 2, 8, 16), full.view(3, 4, 8, 32)[:, :2, :, :16])
    assert torch.equal(block(student, 0).attn.proj.weight, block(teacher, 0).attn.proj.weight[:16, :16])
    assert torch.equal(block(student, 0).mlp.fc2.weight, block(teacher, 0).mlp.fc2.weight[:16, :64])


def test_narrower_heads_take_the_leading_channels_of_each() -> None:
    teacher = network(0)
    student = copied(network(1, embed_dim=16, num_heads=4), teacher)
    qkv, full = block(student, 0).attn.qkv, block(teacher, 0).attn.qkv
    assert torch.equal(qkv.weight.view(3, 4, 4, 16), full.weight.view(3, 4, 8, 32)[:, :, :4, :16])
    assert torch.equal(qkv.bias.view(3, 4, 4), full.bias.view(3, 4, 8)[:, :, :4])
    inner = block(student, 0).attn.proj.weight.view(16, 4, 4)
    assert torch.equal(inner, block(teacher, 0).attn.proj.weight.view(32, 4, 8)[:16, :, :4])


def test_more_heads_than_the_teacher_share_its_leading_channels() -> None:
    teacher = network(0, num_heads=2)
    student = copied(network(1, embed_dim=24, num_heads=3), teacher)
    qkv, full = block(student, 0).attn.qkv.weight, block(teacher, 0).attn.qkv.weight
    assert torch.equal(qkv.view(3, 24, 24), full.view(3, 32, 32)[:, :24, :24])


def test_gates_stay_beside_their_values() -> None:
    name = "vit_giant_patch14_dinov2"
    teacher = network(0, name, mlp_ratio=4.0)
    student = copied(network(1, name, mlp_ratio=4.0, embed_dim=16, num_heads=2), teacher)
    own, full = (block(n, 0).mlp.fc1.weight.unflatten(0, (2, -1)) for n in (student, teacher))
    assert torch.equal(own, full[:, : own.shape[1], :16])


@pytest.mark.parametrize("changes", [{"patch_size": 8}, {"patch_size": 2}, {"img_size": 32}])
def test_positions_and_patches_are_resampled(changes: dict[str, Any]) -> None:
    """A flat image in other patches, or in more of them, is embedded as before where filters are smooth."""
    teacher, student = network(0), network(1, **changes)
    filters = teacher.model.patch_embed.proj.weight.data
    filters.copy_(filters.mean(dim=(2, 3), keepdim=True).expand_as(filters))
    copied(student, teacher)
    grid = student.model.patch_embed.grid_size
    assert student.model.pos_embed.shape[1] == 1 + grid[0] * grid[1]
    size = student.model.patch_embed.img_size[0]
    flat = torch.full((1, 3, 16, 16), 0.7)
    theirs = teacher.model.patch_embed(flat)[0, 0]
    own = student.model.patch_embed(torch.full((1, 3, size, size), 0.7))[0, 0]
    torch.testing.assert_close(own, theirs, atol=0.05, rtol=0.05)
    means = [n.model.pos_embed[0, 1:].mean(dim=0) for n in (student, teacher)]
    torch.testing.assert_close(*means, atol=0.1, rtol=0.1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"embed_dim": 64}, f"student {VIT} is 64 wide, teacher {VIT} 32"),
        ({"depth": 5}, f"student {VIT} is 5 deep, teacher {VIT} 4"),
        ({"name": "beit_base_patch16_224"}, "is a Beit with blocks of timm.models.beit, teacher"),
        ({"init_values": 0.1}, f"student {VIT} has blocks.N.ls1.gamma, blocks.N.ls2.gamma; teacher {VIT} has not"),
        ({"qkv_bias": False}, f"teacher {VIT} has blocks.N.attn.qkv.bias; student {VIT} has not"),
        ({"mlp_ratio": 8.0}, "blocks.0.mlp.fc1.weight is 256 x 32 in"),
    ],
)
def test_who_cannot_take_them_is_told_why(changes: dict[str, Any], said: str) -> None:
    changes = {"name": VIT, **changes}
    with torch.device("meta"):  # shapes alone decide
        student = network(1, **changes)
    with pytest.raises(UserError) as refused:
        check_copy(student, network(0, role="teacher"))
    assert said in str(refused.value)
    assert "Use --student.init random, or a student" in str(refused.value)
    assert "\n" not in str(refused.value)


def closed_form(trainer: StudentTrainer, pixels: torch.Tensor) -> float:
    """L_KD of the student as it stands, with the best projections there are, over that of a constant."""
    distiller = trainer.distiller
    features, left, whole = trainer.teacher(pixels), 0.0, 0.0
    with torch.no_grad():
        tokens = distiller.student(pixels).tokens
    for layer, own in zip(distiller.layers, distiller.student_layers):
        known = tokens[own].flatten(0, 1).double()
        known = torch.cat([known, torch.ones(len(known), 1)], dim=1)
        wanted = distiller.target(layer, features.tokens[layer]).flatten(0, 1).double() * distiller.scales[layer]
        left += float((known @ torch.linalg.lstsq(known, wanted).solution - wanted).square().mean())
        whole += float((wanted - wanted.mean(dim=0)).square().mean())
    return left / whole


@pytest.mark.slow
def test_a_narrower_student_starts_nearer_to_its_teacher(small: Config) -> None:
    """48 of 64 channels and 3 of 6 blocks of the demonstration's clean teacher, whose weights stay as they were."""
    config = small.override({"teacher.name": "demo-clean", "method.refiner": "none"})
    context = TrainContext(config)
    before = {name: weight.clone() for name, weight in context.teacher_model.state_dict().items()}
    pixels = context.pixels(next(context.batches(batch_size=128, seed=0)))
    left = {}
    for start in ("random", "copy"):
        trainer = StudentTrainer(context, config.override({"student.init": start}))
        trainer.observe()
        left[start] = closed_form(trainer, pixels)
    assert left["copy"] < 0.9 * left["random"] < 0.9
    assert all(torch.equal(weight, before[name]) for name, weight in context.teacher_model.state_dict().items())


def test_a_resumed_student_is_not_copied_again(small: Config) -> None:
    config = small.override({"student.init": "copy", "method.refiner": "none"})
    context = TrainContext(config)
    first = StudentTrainer.begin(context, config)
    resumed = StudentTrainer(context, config, resumed=True)
    again, own = (block(trainer.distiller.student, 0).mlp.fc1 for trainer in (resumed, first))
    assert not torch.equal(again.weight, own.weight)
    resumed.restore(first.state())
    assert torch.equal(again.weight, own.weight)
