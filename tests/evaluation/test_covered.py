"""Sizes that patches do not divide: what is scored and distilled is what is seen."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from singer_ray.config import Config
from singer_ray.data.source import Sample
from singer_ray.data.views import EvaluationView
from singer_ray.errors import UserError
from singer_ray.evaluation.features import Annotations, ProbeFeatures, annotations_of, pixel_annotations_of
from singer_ray.evaluation.official import DenseHead, OfficialHeads
from singer_ray.evaluation.patch_targets import IGNORE, patch_classes, patch_depth
from singer_ray.evaluation.protocol import Protocol
from singer_ray.method.distiller import resampler
from singer_ray.vision.networks import network_of
from singer_ray.vision.tapped import TappedViT

PATCH, SIZE, GRID = 14, 64, (4, 4)
"""As DINOv2 (/14) at 512 pixels: 4 x 14 = 56 of the 64 pixels are seen."""
CLASSES = 3


class Tiles:
    """Masks and depth that are constant within each patch that a network cuts out, and something else beyond."""

    fields, classes = frozenset({"mask", "depth"}), ()
    mask_classes = tuple("abc")

    def __init__(self, count: int, seed: int) -> None:
        tiles = torch.randint(0, CLASSES, (count, *GRID), generator=torch.Generator().manual_seed(seed))
        self.masks = torch.full((count, SIZE, SIZE), IGNORE)
        seen = slice(0, GRID[0] * PATCH)
        self.masks[:, seen, seen] = tiles.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)
        self.tiles = tiles

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: int) -> Sample:
        mask = self.masks[index]
        return {
            "image": torch.zeros(3, SIZE, SIZE, dtype=torch.uint8),
            "mask": mask,
            "depth": 1 + mask.float(),
        }


def vit(size: int = SIZE, **options: Any) -> TappedViT:
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=size, patch_size=PATCH, embed_dim=12, depth=1, num_heads=3, **options
    )
    return TappedViT(model, [0], name="student s")


def perfect(tiles: Tiles) -> ProbeFeatures:
    """Features that say the class of their patch, and nothing else."""
    patches = torch.nn.functional.one_hot(tiles.tiles.flatten(1), CLASSES).float()
    return ProbeFeatures(patches.mean(dim=1), patches)


def test_the_grid_knows_which_pixels_it_covers() -> None:
    assert vit().covered(SIZE) == (56, 56)
    assert vit(56).covered(56) == (56, 56)
    assert vit(dynamic_img_size=True, dynamic_img_pad=True).covered(SIZE) == (70, 70)
    assert "sees 56 of the 64 pixels of each side" in str(vit().unseen(SIZE))
    assert "--data.image_size 56 or 70" in str(vit().unseen(SIZE))
    assert vit(56).unseen(56) is None


def test_what_lies_beyond_the_grid_changes_no_feature() -> None:
    network = vit()
    images = torch.rand(1, 3, SIZE, SIZE)
    beyond = images.clone()
    beyond[..., 56:] = beyond[..., 56:, :] = 0
    with torch.no_grad():
        assert torch.equal(network(images).tokens[0], network(beyond).tokens[0])


def test_perfect_features_are_scored_as_perfect() -> None:
    sources = {"train": Tiles(30, 0), "val": Tiles(20, 1)}
    view, covered = EvaluationView(SIZE, 1.0), vit().covered(SIZE)
    known = {n: annotations_of(source, view, GRID, torch.device("cpu"), covered) for n, source in sources.items()}
    features = {n: perfect(source) for n, source in sources.items()}
    scores = Protocol(0, CLASSES, Config().evaluation).run(features, known, ["val"]).scores["val"]
    assert scores["miou"] == 1.0
    assert scores["depth_rmse"] == pytest.approx(0, abs=1e-3)
    # Pooled over the whole image, as if the grid covered it, the labels are those of other pixels.
    apart = {n: annotations_of(source, view, GRID, torch.device("cpu")) for n, source in sources.items()}
    assert Protocol(0, CLASSES, Config().evaluation).run(features, apart, ["val"]).scores["val"]["miou"] < 0.99


def test_official_heads_read_the_pixels_that_are_seen() -> None:
    tiles, covered = Tiles(6, 0), vit().covered(SIZE)
    right = []
    for area in (covered, None):
        head = DenseHead(CLASSES, CLASSES, GRID, SIZE, area)
        with torch.no_grad():
            head.convolution.weight.copy_(torch.eye(CLASSES)[..., None, None])
            head.convolution.bias.zero_()  # type: ignore[union-attr]
            maps = head(perfect(tiles).patches)
        side = maps.shape[-1]
        seen = tiles.masks[:, :side, :side]
        right.append((maps.argmax(dim=1) == seen)[seen != IGNORE].float().mean().item())
    assert side == SIZE
    assert right[0] > 0.95  # a bilinear map changes its class at the borders of patches, save at corners
    assert right[1] < 0.9


def test_official_heads_are_trained_and_scored_on_what_is_seen() -> None:
    sources = {"train": Tiles(2, 0), "val": Tiles(2, 1)}
    nothing, covered = Annotations(None, None, None), vit().covered(SIZE)
    settings = Config().override({"evaluation.official.epochs": 1}).evaluation.official
    heads = OfficialHeads(0, CLASSES, GRID, SIZE, settings, torch.device("cpu"), 0, covered)
    metrics, notes = heads.run(
        {n: perfect(source) for n, source in sources.items()},
        dict.fromkeys(sources, nothing),
        {n: pixel_annotations_of(source, EvaluationView(SIZE, 1.0)) for n, source in sources.items()},
        ["val"],
    )
    assert {"val/official/miou/last", "val/official/depth_rmse_per_image/last"} <= set(metrics)
    assert notes == []


def test_padded_patches_have_the_labels_of_what_they_show() -> None:
    mask = torch.tensor([[[0, 0, 1], [0, 0, 1], [2, 2, 1]]])
    assert patch_classes(mask, (2, 2), 3, (4, 4)).tolist() == [[0, 1, 2, 1]]
    assert patch_depth(mask.float(), (2, 2), (4, 4)).tolist() == [[0, 1, 2, 1]]


def test_sizes_that_a_network_refuses_are_refused_with_the_nearest_that_fit() -> None:
    model = timm.create_model("vit_small_patch16_dinov3", img_size=96, embed_dim=36, depth=1, num_heads=3)
    said = "cannot read images of 100 x 100 pixels: its patches are 16 x 16. Use --data.image_size 96 or 112."
    with pytest.raises(UserError, match=said):
        TappedViT(model, [0], name="teacher t").check_size(100)
    with pytest.raises(UserError, match=said):
        network_of("n", model, 100)
    TappedViT(model, [0]).check_size(96)
    vit().check_size(SIZE)


@pytest.mark.parametrize(("count", "step", "others", "other_step"), [(4, 14, 4, 16), (36, 14, 32, 16), (5, 8, 10, 4)])
def test_grids_are_mapped_by_the_pixels_that_patches_cover(count: int, step: int, others: int, other_step: int) -> None:
    matrix = resampler(count, step, others, other_step)
    assert torch.allclose(matrix.sum(dim=1), torch.ones(count))
    centres = (torch.arange(others) + 0.5) * other_step  # a ramp over the pixels keeps its values
    wanted = ((torch.arange(count) + 0.5) * step).clamp(centres[0], centres[-1])
    assert torch.allclose(matrix @ centres, wanted, atol=1e-4)


def test_a_student_of_other_patches_learns_a_ramp_over_pixels_exactly() -> None:
    """Teacher /14 and student /16 on 64 pixels: a projected student that holds each patch's place in pixels must be
    compared with the place of the teacher's patches."""
    from singer_ray.training.context import TrainContext
    from singer_ray.training.trainer import StudentTrainer
    from tests.conftest import SMALL

    config = Config().override(
        {
            **SMALL,
            "data.image_size": SIZE,
            "student.patch_size": 16,
            "method.refiner": "none",
            "student.width": 12,
            "student.depth": 2,
            "student.heads": 3,
            "teacher.layers": [0],
            "student.layers": [1],
        }
    )
    context = TrainContext(config, teacher=vit().model)
    trainer = StudentTrainer(context, config)
    assert trainer.distiller.teacher_grid == trainer.distiller.student_grid == (4, 4)
    places = ((torch.arange(4) + 0.5) * 16)[None, None].expand(1, 4, 4).reshape(1, 16, 1)
    mapped = trainer.distiller._resampled(places).reshape(4, 4)
    assert torch.allclose(mapped, ((torch.arange(4) + 0.5) * 14).clamp(min=8).expand(4, 4), atol=1e-4)
    assert "by_rows" not in trainer.distiller.state_dict()
    assert any("teacher" in line and "sees 56 of the 64" in line for line in trainer.remarks)
    assert not any("student" in line for line in trainer.remarks)
