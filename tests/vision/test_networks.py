"""Networks by name and by folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from singer_ray.errors import UserError
from singer_ray.vision.models import create_student
from singer_ray.vision.networks import find_network, has_own_weights, network_of, open_network


def exported(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_a_folder_is_an_export_or_a_run(tmp_path: Path) -> None:
    student = exported(tmp_path / "run" / "student")
    for name in (student, tmp_path / "run", f"local-dir:{student}"):
        assert find_network(str(name)) == f"local-dir:{student}"
        assert has_own_weights(find_network(str(name)))


def test_a_known_name_comes_before_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exported(tmp_path / "demo")
    assert find_network("demo") == "demo"
    assert find_network("./demo") == "local-dir:demo"
    assert find_network("hf-hub:owner/model") == "hf-hub:owner/model"
    assert not has_own_weights("vit_tiny_patch16_224")


def test_a_search_is_told_from_a_student(tmp_path: Path) -> None:
    exported(tmp_path / "search" / "best" / "1-006")
    with pytest.raises(UserError, match=r"It is a search: name one of its students, .*/search/best/1-006"):
        find_network(str(tmp_path / "search"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="file' is not a folder"):
        find_network(str(tmp_path / "file"))


def test_a_network_knows_its_input() -> None:
    demo = open_network("demo")
    assert (demo.image_size, demo.crop_pct, demo.grid, demo.normalize.mean) == (32, 1.0, (8, 8), (0.5, 0.5, 0.5))
    larger = open_network("demo", image_size=48, crop_pct=0.875)
    assert (larger.image_size, larger.crop_pct, larger.grid) == (48, 0.875, (12, 12))
    # The weights are the same, whatever was said of published ones.
    again = open_network("demo", pretrained=False)
    assert torch.equal(demo.tapped.blocks[0].mlp.fc1.weight, again.tapped.blocks[0].mlp.fc1.weight)  # type: ignore


def test_a_size_that_the_network_cannot_read_is_refused() -> None:
    model = create_student("vit_tiny_patch16_224", 32, embed_dim=48, depth=1, num_heads=3, patch_size=8)
    assert network_of("small", model, 32).parameters == sum(p.numel() for p in model.parameters())
    with pytest.raises(UserError, match=r"network small cannot read images of 64 x 64 pixels \(Input height"):
        network_of("small", model, 64)
