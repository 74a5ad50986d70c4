"""The variant official against the authors' formulas, worked out here by another road (no tapping, no replay)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch

from singer_ray.config import MethodConfig
from singer_ray.errors import UserError
from singer_ray.method.distiller import Distiller
from singer_ray.method.layers import map_by_depth, map_official
from singer_ray.method.refiners.registry import refiner_class
from singer_ray.method.refiners.singer.official import OfficialSinger
from singer_ray.vision.tapped import TappedViT

LAYERS, MAPPED = (1, 3), (0, 1)
KD, OUTLIER, INFO, GAMMA, RANK = 100.0, 0.01, 1.0, 0.9, 6


def method(**more: Any) -> MethodConfig:
    loss = {"kd": KD, "outlier": OUTLIER, "info": INFO}
    return MethodConfig.model_validate(
        {"variant": "official", "rank": RANK, "outlier_quantile": GAMMA, "loss": loss, **more}
    )


@pytest.fixture(scope="module")
def networks() -> SimpleNamespace:
    """Teacher of 4 blocks, 32 wide; student of 2, 24 wide; 16 patches, one class token; all weights made uneven."""
    torch.manual_seed(0)
    make: Any = timm.create_model
    shape = {"img_size": 16, "patch_size": 4, "num_heads": 2, "num_classes": 0}
    teacher = make("vit_tiny_patch16_224", embed_dim=32, depth=4, **shape).eval().requires_grad_(False)
    student = make("vit_tiny_patch16_224", embed_dim=24, depth=2, **shape)
    for network in (teacher, student):
        for parameter in network.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    images = torch.randn(5, 3, 16, 16)
    return SimpleNamespace(teacher=teacher, student=student, images=images)


@pytest.fixture
def distiller(networks: SimpleNamespace) -> Distiller:
    torch.manual_seed(1)
    teacher = TappedViT(networks.teacher, range(4))
    student = TappedViT(networks.student, MAPPED)
    refiner = OfficialSinger(teacher, LAYERS, method())
    return Distiller(student, MAPPED, teacher, LAYERS, refiner, ((4, 4), (4, 4)), kd_weight=KD, detach=False)


def block_outputs(network: Any, images: torch.Tensor) -> list[torch.Tensor]:
    tokens = network.norm_pre(network._pos_embed(network.patch_embed(images)))
    found = []
    for block in network.blocks:
        tokens = block(tokens)
        found.append(tokens)
    return found


def expected(networks: SimpleNamespace, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The three losses by the formulas of the authors' code, each weighted and averaged over the two layers."""
    with torch.no_grad():
        outputs = block_outputs(networks.teacher, networks.images)
    shown = block_outputs(networks.student, networks.images)
    refined = {}
    for n in LAYERS:
        change = outputs[n] @ weights[f"down{n}"] @ weights[f"up{n}"]
        change[:, 0] = 0
        refined[n] = outputs[n] + change
    kd = outlier = info = torch.zeros(())
    for n, m in zip(LAYERS, MAPPED):
        projected = shown[m] @ weights[f"P{n}"].T + weights[f"b{n}"]
        kd = kd + ((projected - refined[n]) ** 2).mean() / 2
        excess = []
        for image in refined[n][:, 1:]:
            norms = image.square().sum(-1).sqrt()
            threshold = float(np.quantile(norms.detach().numpy(), GAMMA))
            excess += [norm - threshold for norm in norms if norm > threshold]
        outlier = outlier + torch.stack(excess).square().mean() / 2
    after, before = networks.teacher.blocks[2](refined[1]), outputs[2]
    info = info + ((after - before) ** 2).mean() / 2  # class token included
    cosines = []
    for n in LAYERS:
        patches = refined[n][:, 1:]
        lengths = patches.square().sum(-1).sqrt()
        cosines.append(torch.einsum("bid,bjd->bij", patches, patches) / lengths[:, :, None] / lengths[:, None, :])
    info = info + ((cosines[1] - cosines[0]) ** 2).mean() / 2
    return {"kd": kd, "outlier": outlier, "info": info, "loss": KD * kd + OUTLIER * outlier + INFO * info}


def named(distiller: Distiller) -> dict[str, torch.nn.Parameter]:
    modules: Any = distiller
    found: dict[str, torch.nn.Parameter] = {}
    for n in LAYERS:
        adapter, projection = modules.refiner.adapters[str(n)], modules.projections[str(n)]
        found |= {f"down{n}": adapter.phi_down, f"up{n}": adapter.phi_up}
        found |= {f"P{n}": projection.weight, f"b{n}": projection.bias}
    return found


def test_losses_agree(networks: SimpleNamespace, distiller: Distiller) -> None:
    teacher = TappedViT(networks.teacher, range(4))
    features = teacher(networks.images)
    losses = distiller(networks.images, features, teacher.replay)
    wanted = expected(networks, dict(named(distiller)))
    for name in ("kd", "outlier", "info", "loss"):
        assert wanted[name] > 0.01
        assert losses[name].item() == pytest.approx(wanted[name].item(), rel=1e-6), name


def test_gradients_agree(networks: SimpleNamespace, distiller: Distiller) -> None:
    teacher = TappedViT(networks.teacher, range(4))
    loss = distiller(networks.images, teacher(networks.images), teacher.replay)["loss"]
    weights = named(distiller)
    trained = [*weights.values(), networks.student.blocks[0].attn.qkv.weight]
    found = torch.autograd.grad(loss, trained)
    wanted = torch.autograd.grad(expected(networks, dict(weights))["loss"], trained)
    for name, ours, theirs in zip((*weights, "student"), found, wanted, strict=True):
        assert theirs.norm() > 0, name
        assert (ours - theirs).norm() <= 1e-6 * theirs.norm(), name


def test_adapters_start_from_singular_vectors_below_the_threshold(networks: SimpleNamespace) -> None:
    block = networks.teacher.blocks[2]
    transposed = (block.mlp.fc2.weight @ block.mlp.fc1.weight).T
    values = torch.linalg.svdvals(transposed)
    threshold = float((values[-4] + values[-5]) / 2)  # four lie below it
    torch.manual_seed(3)
    refiner: Any = OfficialSinger(TappedViT(networks.teacher, [1]), LAYERS, method(official_threshold=threshold))
    adapter = refiner.adapters["1"]
    assert torch.equal(adapter.phi_up, adapter.phi_down.T)
    chosen = adapter.phi_up[:4]
    # Row i is a left singular vector: W^T u = s u' with the i-th of the values below the threshold, in falling order.
    assert (transposed.T @ chosen.T).norm(dim=0).tolist() == pytest.approx(values[-4:].tolist(), rel=1e-4)
    assert torch.allclose(chosen @ chosen.T, torch.eye(4), atol=1e-5)
    padding = adapter.phi_up[4:]
    assert padding.norm(dim=1).tolist() == pytest.approx([1.0] * (RANK - 4))
    assert (chosen @ padding.T).abs().max() > 1e-3  # random, not orthogonal
    assert "random directions fill up rank 6" in refiner.notes()[0]


def test_the_last_layer_takes_its_own_block_and_outputs_add_the_change(networks: SimpleNamespace) -> None:
    block = networks.teacher.blocks[3]
    transposed = (block.mlp.fc2.weight @ block.mlp.fc1.weight).T
    refiner: Any = OfficialSinger(TappedViT(networks.teacher, [1]), LAYERS, method(official_threshold=1e9))
    adapter = refiner.adapters["3"]
    largest = torch.linalg.svdvals(transposed)[:RANK]
    # With everything below the threshold, the FIRST vectors are taken: those that the block reads most.
    assert (transposed.T @ adapter.phi_down).norm(dim=0).tolist() == pytest.approx(largest.tolist(), rel=1e-4)
    tokens = torch.randn(2, 17, 32)
    change = tokens[:, 1:] @ adapter.phi_down @ adapter.phi_up
    refined = refiner(3, tokens)
    assert torch.allclose(refined[:, 1:], tokens[:, 1:] + change, rtol=1e-6)
    assert torch.equal(refined[:, 0], tokens[:, 0])


def test_the_official_layer_map_leaves_the_last_student_block_out() -> None:
    assert map_official((8, 11), 12, 12) == (7, 10)
    assert map_by_depth((8, 11), 12, 12) == (8, 11)
    assert map_official((17, 23), 24, 12) == (8, 11)


def test_one_layer_is_refused(networks: SimpleNamespace) -> None:
    with pytest.raises(UserError, match="Name two layers or more"):
        OfficialSinger(TappedViT(networks.teacher, [1]), (3,), method())


def test_the_variant_names_the_class() -> None:
    assert refiner_class(method()) is OfficialSinger
