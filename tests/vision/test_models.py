"""Teachers and students by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import singer_ray
from singer_ray.errors import UserError
from singer_ray.method.artifacts import max_median_ratio, patch_norms
from singer_ray.vision.models import Normalization, create_student, load_teacher
from singer_ray.vision.tapped import TappedViT


@pytest.mark.parametrize("name", ["planted", "clean"])
def test_demonstration_checkpoints_are_small(name: str) -> None:
    weights = Path(singer_ray.__file__).parent / "vision" / "demo_teacher" / name / "model.safetensors"
    assert weights.stat().st_size <= 1.4e6


def test_teachers_are_frozen() -> None:
    teacher = load_teacher("demo", 32)
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())


def test_one_demonstration_teacher_has_artifacts_and_the_other_none() -> None:
    from singer_ray.data.scenes import Scenes

    scenes = Scenes("val", 64, 0)
    images = Normalization((0.5,) * 3, (0.5,) * 3)(torch.stack([scenes[i]["image"] for i in range(64)]))
    ratios = {}
    for name in ("demo", "demo-clean"):
        tapped = TappedViT(load_teacher(name, 32), [3])
        with torch.no_grad():
            ratios[name] = max_median_ratio(patch_norms(tapped(images).tokens[3][:, 1:])).mean().item()
    assert ratios["demo"] > 8
    assert ratios["demo-clean"] < 2


def test_unknown_teacher_gets_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"'vit_larg_patch16_224' is not a timm model. Did you mean vit_large_patch16"):
        load_teacher("vit_larg_patch16_224", 224, pretrained=False)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere/config.json is missing"):
        load_teacher(f"local-dir:{tmp_path}/nowhere", 32)


def test_checkpoint_that_does_not_fit_is_refused_in_one_line(tmp_path: Path) -> None:
    torch.save({"nothing.weight": torch.zeros(1)}, tmp_path / "wrong.pth")
    with pytest.raises(UserError, match=r"wrong.pth' is not of vit_tiny_patch16_224: 0 of its") as caught:
        load_teacher("vit_tiny_patch16_224", 32, checkpoint=str(tmp_path / "wrong.pth"))
    assert "\n" not in str(caught.value)


def test_student_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match=r"student.name 'vit_tiny_patch16_224' cannot be made with"):
        create_student("vit_tiny_patch16_224", 32, embed_dim=50, num_heads=3)


def test_normalization_is_per_channel() -> None:
    images = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    scaled = Normalization((0.0, 0.5, 0.25), (1.0, 0.5, 0.25))(images)
    assert scaled[0, :, 0, 0].tolist() == pytest.approx([1.0, 1.0, 3.0])
