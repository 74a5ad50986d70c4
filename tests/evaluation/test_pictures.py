"""Colours and choices behind the pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from matplotlib import pyplot

from singer_ray.evaluation.pictures import (
    PrincipalColours,
    TokenSet,
    draw_norm_histograms,
    draw_norms,
    draw_pca,
    most_affected,
)


def tokens(count: int = 400) -> torch.Tensor:
    """Standard deviations 8, 4, 2, 1, 1, ... along the axes of an 8-dimensional space."""
    scale = torch.tensor([8.0, 4.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(0)) * scale


def test_the_first_three_components_are_red_green_and_blue() -> None:
    colours = PrincipalColours(tokens())
    grey = colours(torch.zeros(8))
    assert grey.tolist() == pytest.approx([0.5] * 3, abs=0.1)
    for axis in range(3):
        far = torch.zeros(8)
        far[axis] = 100.0
        change = colours(far) - grey
        assert float(change[axis]) == pytest.approx(0.5, abs=0.1)  # clipped at the top
        assert int(change.abs().argmax()) == axis


def test_colours_depend_on_the_tokens_they_are_fitted_on_alone() -> None:
    fit = tokens()
    some = fit[:10]
    artifact = torch.full((1, 8), 1e4)
    colours = PrincipalColours(fit)
    together = colours(torch.cat([some, artifact]))
    assert torch.equal(together[:10], colours(some))
    assert 0 <= float(together.min()) <= float(together.max()) <= 1
    assert not torch.allclose(PrincipalColours(torch.cat([fit, artifact]))(some), colours(some), atol=0.1)


def test_the_most_affected_images_come_first() -> None:
    patches = torch.ones(4, 9, 8)
    patches[2, 0], patches[1, 5] = 30.0, 10.0
    assert most_affected(patches, 2) == [2, 1]


@pytest.mark.slow
def test_pictures_take_any_number_of_sets(tmp_path: Path) -> None:
    images = torch.randint(0, 255, (3, 3, 32, 32), dtype=torch.uint8)
    patches = tokens(3 * 16).reshape(3, 16, 8)
    sets = [TokenSet(name, patches, (4, 4)) for name in "abcd"] + [TokenSet("coarse", patches[:, :4], (2, 2))]
    draw_norms(tmp_path / "norms.png", images, sets)
    draw_pca(tmp_path / "pca.png", images, sets, tokens())
    draw_norm_histograms(tmp_path / "h.png", {str(n): {"x": torch.rand(2, 9) + 0.5} for n in range(7)}, 4.0)
    for path in (tmp_path / name for name in ("norms.png", "pca.png", "h.png")):
        assert pyplot.imread(path)[..., :3].std() > 0.05, f"{path.name} is blank"
