"""The folder that a student is delivered as."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file

from singer_ray.config import Config, load_preset
from singer_ray.distillation import Distilled, run_distillation
from singer_ray.publishing.manifest import check_folder
from singer_ray.training.launch import Inputs


def test_timm_loads_the_student(run: Distilled) -> None:
    model: Any = timm.create_model(f"local-dir:{run.student}", pretrained=True).eval()
    assert model.num_classes == 0
    assert (model.embed_dim, len(model.blocks), model.blocks[0].attn.num_heads) == (48, 3, 3)
    images = torch.rand(2, 3, 32, 32)
    tokens = model.forward_features(images)
    assert tokens.shape == (2, 65, 48)
    assert torch.allclose(tokens.mean(-1), torch.zeros(2, 65), atol=1e-5)  # the final norm is inside
    assert torch.allclose(model(images), tokens[:, 1:].mean(1), atol=1e-6)  # pooled as the probes pool


def test_the_package_says_how_to_prepare_images(run: Distilled) -> None:
    config = timm.data.resolve_model_data_config(timm.create_model(f"local-dir:{run.student}", pretrained=True))
    assert config["input_size"] == (3, 32, 32)
    assert list(config["mean"]) == list(config["std"]) == [0.5, 0.5, 0.5]
    assert config["crop_pct"] == 1.0


def test_the_package_does_not_claim_published_weights(run: Distilled) -> None:
    config = json.loads((run.student / "config.json").read_text())
    assert config["architecture"] == "vit_tiny_patch16_224"
    assert config["model_args"]["embed_dim"] == 48
    assert not config["pretrained_cfg"].get("hf_hub_id")
    assert not config["pretrained_cfg"].get("url")


def test_its_configuration_is_a_preset(run: Distilled) -> None:
    assert load_preset(str(run.student / "config.yaml")) == Config.model_validate(run.result["config"])


def test_the_card_holds_the_figures(run: Distilled) -> None:
    card = (run.student / "README.md").read_text()
    assert f"{run.metrics['val/miou']:.4f} | {run.metrics['test/miou']:.4f}" in card
    assert "rank 16" in card
    assert yaml.safe_load((run.student / "config.yaml").read_text())["method"]["rank"] == 16


def test_files_are_readable_by_others(run: Distilled) -> None:
    assert all(path.stat().st_mode & 0o044 for path in run.student.rglob("*"))


@pytest.mark.parametrize("settings", [{"method.refiner": "none"}, {"evaluation.pooling": "class"}])
def test_other_settings_make_loadable_packages(small: Config, tmp_path: Path, settings: dict[str, Any]) -> None:
    done = run_distillation(small.override(settings), tmp_path / "run")
    model: Any = timm.create_model(f"local-dir:{done.student}", pretrained=True).eval()
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 48)


def test_the_head_classifies_as_the_probe_does(run: Distilled, small: Config) -> None:
    """Its accuracy on the validation images, read through timm, is the metric that the run reported."""
    bench = Inputs().workbench(small)
    source = bench.suite.sources["val"]
    images = torch.stack([bench.evaluation_view.image(source[i]["image"]) for i in range(len(source))])
    labels = torch.tensor([source[i]["label"] for i in range(len(source))])
    model: Any = timm.create_model(f"local-dir:{run.student}", pretrained=True).eval()
    model.reset_classifier(len(source.classes))
    model.get_classifier().load_state_dict(load_file(run.student / "head.safetensors"))
    with torch.no_grad():
        guess = model(bench.normalize(images)).argmax(dim=1)
    assert json.loads((run.student / "classes.json").read_text()) == list(source.classes)
    assert float((guess == labels).float().mean()) == pytest.approx(run.metrics["val/after_norm/linear_top1"], abs=1e-6)


def test_the_manifest_fits_the_folder(run: Distilled) -> None:
    assert set(check_folder(run.student).files) >= {"README.md", "config.yaml", "result.json", "pictures/norm_maps.png"}
