"""The folder that a student is delivered as."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file

from singer_ray.config import Config, load_preset
from singer_ray.distillation import Distilled, run_distillation
from singer_ray.errors import UserError
from singer_ray.publishing.card import card
from singer_ray.publishing.package import seal
from singer_ray.publishing.packages.manifest import check_folder
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


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"method.refiner": "none"}, {"evaluation.pooling": "class"}])
def test_other_settings_make_loadable_packages(small: Config, tmp_path: Path, settings: dict[str, Any]) -> None:
    done = run_distillation(small.override(settings), tmp_path / "run")
    model: Any = timm.create_model(f"local-dir:{done.student}", pretrained=True).eval()
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 48)


def test_the_head_classifies_as_the_probe_does(run: Distilled, small: Config) -> None:
    """Its accuracy on the validation images, read through timm, is the metric that the run reported."""
    context = Inputs().context(small)
    source = context.suite.sources["val"]
    images = torch.stack([context.evaluation_view.image(source[i]["image"]) for i in range(len(source))])
    labels = torch.tensor([source[i]["label"] for i in range(len(source))])
    model: Any = timm.create_model(f"local-dir:{run.student}", pretrained=True).eval()
    model.reset_classifier(len(source.classes))
    model.get_classifier().load_state_dict(load_file(run.student / "head.safetensors"))
    with torch.no_grad():
        guess = model(context.normalize(images)).argmax(dim=1)
    assert json.loads((run.student / "classes.json").read_text()) == list(source.classes)
    assert float((guess == labels).float().mean()) == pytest.approx(run.metrics["val/after_norm/linear_top1"], abs=1e-6)


def test_the_manifest_fits_the_folder(run: Distilled) -> None:
    assert set(check_folder(run.student).files) >= {"README.md", "config.yaml", "result.json", "pictures/norm_maps.png"}


EVIL = "x` | [y](http://z) <img src=q onerror=r>\n---\n# head \x1b[2J"


def test_names_cannot_write_the_card(run: Distilled, tmp_path: Path) -> None:
    """Names of teachers, classes, searches and parameters are a stranger's to choose."""
    folder = tmp_path / "student"
    shutil.copytree(run.student, folder)
    (folder / "classes.json").write_text(json.dumps([EVIL, "fine"]))
    result = json.loads((folder / "result.json").read_text())
    plain = card(result, folder)
    config = result["config"]
    config["teacher"] |= {"name": EVIL, "checkpoint": EVIL}
    config["student"]["name"] = EVIL
    config["data"] |= {"source": "imagefolder", "train": EVIL}
    config["evaluation"]["pooling"] = EVIL
    config["export"]["license"] = EVIL
    result["metrics"][f"val/{EVIL}"] = result["metrics"][f"teacher/max_median_norm/{EVIL}"] = 0.5
    result["versions"][EVIL] = EVIL
    result["search"] = {
        "trial": EVIL,
        "name": EVIL,
        "rank": 1,
        "trials": 2,
        "objectives": [EVIL],
        "parameters": {EVIL: EVIL},
        "selected_by": EVIL,
        "seeds": 2,
        "mean": 0.5,
        "spread": 0.1,
        "state": "COMPLETE",
    }
    text = card(result, folder)
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head)["license"].startswith("x` | [y]")
    lines = text.splitlines()
    assert next(line for line in lines if line.startswith("#")).startswith("# x\\`")
    assert [line for line in lines if line.startswith("## ")] == [
        line for line in plain.splitlines() if line.startswith("## ")
    ]
    assert not any(line.startswith(("# head", "---")) for line in body.splitlines() if "| --- |" not in line)
    assert "\x1b" not in text
    prose = re.sub(
        r"(`+)(?!`).*?(?<!`)\1(?!`)", "", re.sub(r"\\.", "", re.sub(r"```.*?```", "", body, flags=re.DOTALL))
    )
    assert "<img" not in prose
    assert "[y]" not in prose
    rows = [re.sub(r"\\.", "", line) for line in lines if line.startswith("| ")]
    assert {row.count("|") for row in rows} <= {3, 4}


@pytest.mark.parametrize(
    "spoil", [{"num_features": "many"}, {"pretrained_cfg": []}, {"pretrained_cfg": {"input_size": 3}}]
)
def test_a_spoilt_student_is_said_in_one_line(run: Distilled, tmp_path: Path, spoil: dict[str, Any]) -> None:
    folder = tmp_path / "student"
    shutil.copytree(run.student, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | spoil))
    with pytest.raises(UserError, match="holds no student of singer_ray"):
        seal(folder)
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"config.json is nested more than"):
        seal(folder)


@pytest.mark.slow
def test_what_is_written_holds_no_password(small: Config, tmp_path: Path) -> None:
    secret = {"search.study": "postgresql://me:sesame@db/x", "export.endpoint": "http://key:sesame@minio:9000"}
    config = small.override({**secret, "train.epochs": 1})
    done = run_distillation(config, tmp_path / "run", log=lambda line: None)
    found = [path for path in done.out.rglob("*") if path.is_file()]
    assert not [path for path in found if b"sesame" in path.read_bytes()]
    assert load_preset(str(done.out / "config.yaml")).search.study == "postgresql://me@db/x"
    run_distillation(config, done.out, resume=True, log=lambda line: None)  # the same settings, password and all
