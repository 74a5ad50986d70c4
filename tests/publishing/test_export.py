"""Experiments and runs brought to a store by the command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import boto3
import pandas as pd
import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file

from singer_ray import export
from singer_ray.cli import run_command
from singer_ray.distillation import Distilled
from singer_ray.layout import MANIFEST
from singer_ray.publishing.package import seal
from tests.publishing.conftest import NO_ONNX, Export
from tests.servers import CREDENTIALS


@pytest.mark.slow
def test_a_search_is_published_with_its_study_and_an_index(command: Export, search: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    status, said, fault = command(search, "--to", place, "--top", "2", *NO_ONNX)
    assert status == 0, fault
    assert said.count("exported ") == 2
    names = {p.relative_to(place / "search").as_posix() for p in (place / "search").rglob("*") if p.is_file()}
    assert {
        "leaderboard.parquet",
        "experiment.json",
        "study/config.yaml",
        "study/space.yaml",
        "study/study.journal",
        "students/1-002/MANIFEST.json",
        "students/2-000/model.safetensors",
    } <= names
    (entry,) = json.loads((place / "index.json").read_text())["experiments"]
    assert entry["name"] == "search"
    assert [(s["rank"], s["trial"], s["path"]) for s in entry["students"]] == [
        (1, "002", "search/students/1-002"),
        (2, "000", "search/students/2-000"),
    ]
    assert command("--verify", place)[1].endswith("all OK\n")
    assert "was there already" in command(search, "--to", place, "--top", "2", *NO_ONNX)[1]


@pytest.mark.slow
def test_a_student_is_built_from_its_checkpoint(command: Export, search: Path, run: Distilled, tmp_path: Path) -> None:
    assert command(search, "--to", tmp_path / "place", "--trial", "0", *NO_ONNX)[0] == 0
    folder = tmp_path / "place" / "search" / "students" / "2-000"
    images = torch.rand(2, 3, 32, 32)
    ours: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    theirs: Any = timm.create_model(f"local-dir:{run.student}", pretrained=True).eval()
    assert torch.equal(ours(images), theirs(images))
    result = json.loads((folder / "result.json").read_text())
    assert result["config"]["method"]["strength"] == 0.5  # of its row, not of the search's configuration
    assert result["metrics"]["test/miou"] == 0.33  # of the leaderboard
    assert result["metrics"]["student/max_median_norm/2"] == 1.5  # of the study


@pytest.mark.slow
def test_the_card_says_how_the_search_found_it(command: Export, search: Path, tmp_path: Path) -> None:
    command(search, "--to", tmp_path / "place", "--top", "1", "--export.license", "mit", *NO_ONNX)
    card = (tmp_path / "place" / "search" / "students" / "1-002" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert (front["library_name"], front["license"]) == ("timm", "mit")
    assert "Trial 002 of the search `search`, rank 1 of 4 by val/miou:max" in card
    assert "Over 3 seeds, val/miou is 0.2900 ± 0.0200" in card
    assert "![Patch features as colours" in card
    assert "python -m singer_ray.train --preset config.yaml" in card


@pytest.mark.slow
def test_credentials_are_published_nowhere(command: Export, search: Path, tmp_path: Path) -> None:
    assert command(search, "--to", tmp_path / "place", "--top", "2", *NO_ONNX)[0] == 0
    files = [p for p in (tmp_path / "place").rglob("*") if p.is_file()]
    assert not [p for p in files if b"secret" in p.read_bytes()]
    study = tmp_path / "place" / "search" / "study" / "config.yaml"
    assert "postgresql://***@host/db" in study.read_text()
    table = pd.read_parquet(tmp_path / "place" / "search" / "leaderboard.parquet")
    assert "no connection to postgresql://***@host/db" in list(table["fault"])
    assert list(table["rank"]) == [1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "students"),
    [
        (("--metric", "test/miou", "--top", "1"), {"2-000"}),
        (("--metric", "val/miou:min", "--top", "1"), {"2-000"}),
        (("--front",), {"1-002", "2-000"}),
        (("--trial", "2,000"), {"1-002", "2-000"}),
    ],
)
def test_students_are_selected(
    command: Export, search: Path, tmp_path: Path, arguments: tuple[str, ...], students: set[str]
) -> None:
    assert command(search, "--to", tmp_path / "place", *arguments, *NO_ONNX)[0] == 0
    assert {p.name for p in (tmp_path / "place" / "search" / "students").iterdir()} == students


@pytest.mark.slow
def test_a_run_reaches_s3_with_onnx_and_a_program(
    command: Export, run: Distilled, server: str, bucket: str, tmp_path: Path
) -> None:
    address = f"s3://{bucket}/students"
    endpoint = ("--export.endpoint", server)
    status, _, fault = command(run.out, "--to", address, "--export.onnx", "yes", "--export.program", "True", *endpoint)
    assert status == 0, fault
    listed = boto3.client("s3", endpoint_url=server, **CREDENTIALS).list_objects_v2(Bucket=bucket)["Contents"]
    assert "students/index.json" in {entry["Key"] for entry in listed}
    pulled = tmp_path / "pulled"
    assert command("--pull", f"{address}/run/students/1-000", pulled, *endpoint)[0] == 0
    model: Any = timm.create_model(f"local-dir:{pulled}", pretrained=True).eval()
    images = torch.rand(3, 3, 32, 32)
    tokens, pooled = model.forward_features(images), model(images)
    head = load_file(pulled / "head.safetensors")
    model.reset_classifier(len(head["bias"]))
    model.get_classifier().load_state_dict(head)
    expected = (tokens, pooled, model(images))
    import onnxruntime

    session = onnxruntime.InferenceSession(str(pulled / "model.onnx"))
    program: Any = torch.export.load(pulled / "model.pt2").module()
    for found in (session.run(None, {"pixels": images.numpy()}), program(images)):
        assert len(found) == 3
        for ours, theirs in zip(expected, found):
            assert torch.allclose(ours, torch.as_tensor(theirs), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_a_student_whose_rank_changed_is_not_published_twice(command: Export, search: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    assert command(search, "--to", place, "--top", "1", *NO_ONNX)[0] == 0
    table = pd.read_parquet(search / "leaderboard.parquet")
    table["rank"] = [2, 1, 3, 4]
    table.sort_values("rank").to_parquet(search / "leaderboard.parquet")
    assert command(search, "--to", place, "--top", "2", *NO_ONNX)[0] == 0
    assert {p.name for p in (place / "search" / "students").iterdir()} == {"1-002", "1-000"}


@pytest.mark.slow
def test_a_dry_run_writes_nothing(command: Export, search: Path, tmp_path: Path) -> None:
    said = command(search, "--to", tmp_path / "place", "--top", "1", "--dry-run")[1]
    assert "# would export 1-002 of search" in said
    assert not (tmp_path / "place").exists()


@pytest.mark.slow
def test_the_hub_layout_loads(run: Distilled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package as the Hub's cache keeps a repository: `hf-hub:` finds everything there, without a network."""
    repository = tmp_path / "models--me--student"
    shutil.copytree(run.student, repository / "snapshots" / "0123abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model: Any = timm.create_model("hf-hub:me/student", pretrained=True, cache_dir=str(tmp_path)).eval()
    ours: Any = timm.create_model(f"local-dir:{run.student}", pretrained=True).eval()
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(model(images), ours(images))


@pytest.mark.slow
def test_sealing_again_takes_up_what_was_added(run: Distilled, tmp_path: Path) -> None:
    folder = shutil.copytree(run.student, tmp_path / "student")
    before = (folder / MANIFEST).read_bytes()
    assert seal(folder).to_bytes() == before
    (folder / "pictures" / "pca.png").write_bytes(b"a picture")
    assert "pictures/pca.png" in seal(folder).files
    assert "pictures/pca.png" in (folder / "README.md").read_text()


def test_help_explains_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_command(export.COMMAND, export.main, ["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    flags = ("--to", "--top", "--metric", "--front", "--trial", "--replace", "--verify", "--pull", "--export.endpoint")
    assert all(flag in shown for flag in flags)


@pytest.mark.slow
def test_a_relative_address_has_the_name_of_its_folder(
    command: Export, run: Distilled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.out / "student")
    assert command("..", "--to", tmp_path / "place", *NO_ONNX)[0] == 0
    assert (tmp_path / "place" / run.out.name / "students").is_dir()


@pytest.mark.slow
def test_replacing_another_experiment_removes_its_students_when_the_new_ones_have_come(
    command: Export, search: Path, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    assert command(search, "--to", place, "--top", "2", *NO_ONNX)[0] == 0
    (search / "search.json").write_text(json.dumps({"name": "search", "id": "b"}))
    (search / "best" / "1-002" / "result.json").write_text("{")
    status, _, fault = command(search, "--to", place, "--top", "1", "--replace", *NO_ONNX)
    assert status == 2
    assert "was changed after its MANIFEST" in fault
    assert command("--verify", place)[1].startswith("OK: ")
    shutil.rmtree(search / "best")
    assert command(search, "--to", place, "--top", "1", "--replace", *NO_ONNX)[0] == 0
    assert [p.name for p in (place / "search" / "students").iterdir()] == ["1-002"]


@pytest.mark.slow
def test_a_listed_package_that_is_gone_is_missed(command: Export, search: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    command(search, "--to", place, "--top", "2", *NO_ONNX)
    (place / "search" / "students" / "2-000" / MANIFEST).unlink()
    status, said, fault = command("--verify", place)
    assert status == 2
    assert "students/2-000 is listed, but is not there as it was published" in fault
    assert "1-002" in said


@pytest.mark.slow
def test_another_card_of_a_student_is_said(command: Export, search: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    command(search, "--to", place, "--top", "1", *NO_ONNX)
    said = command(search, "--to", place, "--top", "1", "--export.license", "mit", *NO_ONNX)[1]
    assert "(the same student, with another rank, card or format: --replace renews it)" in said
    assert command(search, "--to", place, "--top", "1", "--export.license", "mit", "--replace", *NO_ONNX)[0] == 0
    assert "license: mit" in (place / "search" / "students" / "1-002" / "README.md").read_text()
