"""Per-layer statistics on tokens whose answers are known, and on the teachers that ship."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from singer_ray.analysis import artifacts
from singer_ray.analysis.artifacts import LayerReport, border, find_directions, survey_layers
from singer_ray.analysis.remedy import has_artifacts
from singer_ray.data.loader import evaluation_batches
from singer_ray.data.scenes import Scenes
from singer_ray.data.views import EvaluationView
from singer_ray.vision.models import load_teacher, normalization_of
from singer_ray.vision.tapped import TappedViT

GRID = (4, 5)
DIM = 16


class Fixed(nn.Module):
    """A `transformer` of one block whose tokens are the images themselves, behind one prefix token."""

    num_prefix_tokens = 1
    embed_dim = DIM

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Identity()])

    def forward_features(self, tokens: torch.Tensor) -> torch.Tensor:
        prefix = torch.full((len(tokens), 1, DIM), 1e6)  # never to be counted
        seen: torch.Tensor = self.blocks[0](torch.cat([prefix, tokens], dim=1))
        return seen


def survey(tokens: torch.Tensor, k: float = 4.0) -> LayerReport:
    return survey_layers(TappedViT(Fixed(), [0]), tokens.split(7), GRID, k=k, rank=4)[0]


def planted(directions: int, images: int = 200) -> torch.Tensor:
    """Unit-norm tokens of random direction; token d of each image is 20 x axis d + a normal token."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(images, GRID[0] * GRID[1], DIM, generator=generator)
    tokens = torch.nn.functional.normalize(tokens, dim=-1)
    for d in range(directions):
        tokens[:, d, d] += 20
    return tokens


def test_shares_are_exact() -> None:
    tokens = torch.zeros(3, 20, DIM)
    tokens[..., 0] = 1.0
    tokens[0, 0, 0] = 10.0  # a corner: row 0, column 0
    tokens[1, 6, 0] = 5.0  # inside: row 1, column 1
    tokens[2, 3, 0] = 4.0  # not above 4 x the median
    report = survey(tokens)
    assert report.token_share == pytest.approx(2 / 60)
    assert report.energy_share == pytest.approx(125 / (125 + 16 + 57))
    assert report.max_median == pytest.approx((10 + 5 + 4) / 3)
    assert report.frequency.nonzero().tolist() == [[0, 0], [1, 1]]
    assert float(report.frequency[0, 0]) == pytest.approx(1 / 3)
    assert (report.border_share, report.border_chance) == pytest.approx((1 / 2, 14 / 20))
    assert survey(tokens, k=3.5).token_share == pytest.approx(3 / 60)
    assert report.directions is None  # two tokens say nothing about directions


def test_every_patch_of_a_narrow_grid_is_border() -> None:
    assert border((2, 5)).all()
    assert border((3, 3)).sum() == 8


def test_the_histogram_counts_every_token_once() -> None:
    detail = survey(planted(2)).detail()
    assert sum(detail["histogram"]["counts"]) == 200 * 20
    edges, counts = detail["histogram"]["edges"], detail["histogram"]["counts"]
    assert sum(c for low, c in zip(edges, counts) if low >= 16) == 2 * 200


@pytest.mark.parametrize("directions", [1, 2, 5])
def test_planted_directions_are_counted_and_found(directions: int) -> None:
    found = survey(planted(directions)).directions
    assert found is not None
    assert set(found.count.values()) == {directions}
    axes = torch.eye(DIM, dtype=torch.float64)[:, :directions]
    assert (found.basis[:, :directions].mT @ axes).svd().S.min() > 0.99
    assert found.top_shares[1] == pytest.approx(1 / directions, abs=0.02)


def test_moments_are_about_the_mean_of_the_normal_tokens() -> None:
    tokens = planted(2)
    tokens[..., 9] += 3.0  # all tokens have this in common: no deviation
    found = survey(tokens).directions
    assert found is not None
    flat = tokens.double()
    mean = flat[:, 2:].flatten(0, 1).mean(dim=0)
    outlier, normal = ((part - mean).flatten(0, 1) for part in (flat[:, :2], flat[:, 2:]))
    difference = outlier.mT @ outlier / len(outlier) - normal.mT @ normal / len(normal)
    expected = torch.linalg.eigvalsh(difference).flip(0).clamp_min(0)
    assert torch.allclose(found.excess, expected, rtol=1e-6, atol=1e-6)


def test_what_normal_tokens_have_as_well_is_no_artifact_direction() -> None:
    shared = torch.diag(torch.tensor([100.0, *[1.0] * (DIM - 1)], dtype=torch.float64))
    artifact = torch.zeros(DIM, DIM, dtype=torch.float64)
    artifact[3, 3] = 50.0
    found = find_directions(shared + artifact, shared)
    assert found.count == {0.9: 1, 0.95: 1}
    assert abs(float(found.basis[3, 0])) == pytest.approx(1)
    assert found.top_shares[1] < 0.7  # the plain singular directions are led by what is shared


def test_the_share_in_a_space_is_that_of_the_energy_in_it() -> None:
    moment = torch.diag(torch.tensor([9.0, 1.0, *[0.0] * (DIM - 2)], dtype=torch.float64))
    axes = torch.eye(DIM, dtype=torch.float64)
    found = find_directions(moment, axes, {"null_space": axes[:, 1:3]})
    assert found.read_shares == pytest.approx(
        {"null_space": 0.1, "normal_null_space": 2 / DIM, "space_chance": 2 / DIM}
    )


def test_the_nature_is_that_of_the_first_images(monkeypatch: pytest.MonkeyPatch) -> None:
    assert survey(planted(3)).nature.number == 3
    monkeypatch.setattr(artifacts, "KEPT_VALUES", 20 * GRID[0] * GRID[1] * DIM)
    tokens = planted(3)
    tokens[20:] = tokens[20:, 3:4]  # beyond what is kept: no artifacts
    found = survey(tokens)
    assert found.nature.number == 3
    assert found.nature.token_share == pytest.approx(3 / 20)
    assert found.token_share == pytest.approx(3 / 20 * 20 / 200)
    assert found.metrics(0)["teacher/spectral_directions/0"] == 3


@pytest.mark.parametrize(("pooling", "normed"), [("token", True), ("avg", False)])
def test_the_final_norm_is_measured_where_tokens_have_one(pooling: str, normed: bool) -> None:
    torch.manual_seed(0)
    make: Any = timm.create_model
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    model = make("vit_tiny_patch16_224", num_classes=0, global_pool=pooling, **size).eval()
    with torch.no_grad():
        model.blocks[1].mlp.fc2.bias.copy_(torch.randn(16))
    teacher = TappedViT(model, range(2))
    reports = survey_layers(teacher, [torch.randn(8, 3, 32, 32)], (4, 4), k=4.0, rank=4)
    assert reports[0].after_norm is None
    assert "teacher/max_median_after_norm/0" not in reports[0].metrics(0)
    if normed:
        assert reports[1].after_norm == pytest.approx(1.0, abs=0.01)  # a fresh LayerNorm makes all tokens as long
        assert reports[1].max_median > 1.01
    else:
        assert reports[1].after_norm is None


def demo_reports(name: str) -> tuple[TappedViT, dict[int, LayerReport]]:
    model = load_teacher(name, 32)
    teacher = TappedViT(model, range(6))
    normalize = normalization_of(model)
    batches = evaluation_batches(Scenes("val", 96, 0), EvaluationView(32, 1.0), batch_size=48)
    pixels = (normalize(batch["image"]) for batch in batches)
    return teacher, survey_layers(teacher, pixels, teacher.grid(32), k=4.0, rank=8)


def test_the_demo_teacher_has_the_three_planted_directions() -> None:
    teacher, reports = demo_reports("demo")
    assert reports[1].token_share == 0.0  # block 2 plants them
    for layer in (2, 3, 4, 5):
        report = reports[layer]
        assert report.energy_share > 0.5
        assert report.directions is not None
        assert report.directions.count[0.95] == 3
        assert report.nature.number == 3
        assert not report.nature.locked
        assert report.nature.recurrence is not None
    two = reports[2].directions
    assert two is not None
    columns = teacher.model.blocks[2].mlp.fc2.weight.detach().double()
    planted_axes = columns[:, columns.norm(dim=0).topk(3).indices]
    planted_axes = planted_axes / planted_axes.norm(dim=0)
    assert (two.basis[:, :3].mT @ planted_axes).svd().S.min() > 0.99
    names = reports[5].metrics(5)
    assert {"teacher/outlier_energy_null_space/5", "teacher/border_share/5", "teacher/norm_q50/5"} <= set(names)


def test_the_clean_teacher_has_no_outliers() -> None:
    _, reports = demo_reports("demo-clean")
    assert [r.token_share for r in reports.values()] == [0.0] * 6
    assert all(r.directions is None and r.max_median < 2 for r in reports.values())
    assert not any(has_artifacts(r) for r in reports.values())
