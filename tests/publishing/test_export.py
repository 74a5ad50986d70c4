"""Experiments and runs brought to a store by the command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import optuna
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
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.opening import create_study, storage_of
from singer_ray.search.study.schema import METRICS
from tests.servers import CREDENTIALS

NO_ONNX = ("--export.onnx", "no")
Export = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Export:
    """The command: its exit status, and what it wrote to stdout and stderr."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        status = run_command(export.COMMAND, export.main, [str(a) for a in arguments])
        said = capfd.readouterr()
        return status, said.out, said.err

    return call


@pytest.fixture
def search(run: Distilled, tmp_path: Path) -> Path:
    """The folder of a search of four trials: best/ holds the first, trials/ the checkpoints of two, one failed."""
    out = tmp_path / "search"
    shutil.copytree(run.student, out / "best" / "1-002")
    for trial in ("000", "002"):
        (out / "trials" / trial).mkdir(parents=True)
        shutil.copyfile(run.out / "checkpoint.pt", out / "trials" / trial / "checkpoint.pt")
    config = yaml.safe_load((run.out / "config.yaml").read_text())
    config["search"]["study"] = "postgresql://me:secret@host/db"
    (out / "config.yaml").write_text(yaml.safe_dump(config))
    (out / "space.yaml").write_text("method.strength: {type: uniform, low: 0.1, high: 1.0}\n")
    (out / "search.json").write_text(
        json.dumps(
            {"name": "search", "study": None, "objectives": ["val/miou:max"], "id": "a", "sessions": [{"begin": 1.5}]}
        )
    )
    rows = [
        ("002", "COMPLETE", 0.9, 0.30, 0.31, 2, None, 3, 0.29, 0.02),
        ("000", "COMPLETE", 0.5, 0.20, 0.33, 2, None, 1, None, None),
        ("003", "PRUNED", 0.4, 0.10, None, 1, None, None, None, None),
        ("001", "FAIL", 0.3, None, None, 0, "no connection to postgresql://me:secret@host/db", None, None, None),
    ]
    columns = ["id", "state", "method.strength", "val/miou", "test/miou", "epochs", "fault", "seeds", "mean", "spread"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(0, "rank", range(1, 5))
    table.insert(3, "front", [True, True, False, False])
    table["seconds"] = 12.5
    table.to_parquet(out / "leaderboard.parquet")
    table.to_csv(out / "leaderboard.csv")
    study = create_study(storage_of(None, out), "search", Objectives(("val/miou",), ("max",), "val/miou", "max"))
    for _ in range(4):
        row = study.ask({"method.strength": optuna.distributions.FloatDistribution(0.1, 1.0)})
        row.set_user_attr(METRICS, {"val/miou": 0.2, "val/after_norm/miou": 0.19, "student/max_median_norm/2": 1.5})
        study.tell(row, 0.2)
    return out


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


def test_the_card_says_how_the_search_found_it(command: Export, search: Path, tmp_path: Path) -> None:
    command(search, "--to", tmp_path / "place", "--top", "1", "--export.license", "mit", *NO_ONNX)
    card = (tmp_path / "place" / "search" / "students" / "1-002" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert (front["library_name"], front["license"]) == ("timm", "mit")
    assert "Trial 002 of the search `search`, rank 1 of 4 by val/miou:max" in card
    assert "Over 3 seeds, val/miou is 0.2900 ± 0.0200" in card
    assert "![Patch features as colours" in card
    assert "python -m singer_ray.train --preset config.yaml" in card


def test_credentials_are_published_nowhere(command: Export, search: Path, tmp_path: Path) -> None:
    assert command(search, "--to", tmp_path / "place", "--top", "2", *NO_ONNX)[0] == 0
    files = [p for p in (tmp_path / "place").rglob("*") if p.is_file()]
    assert not [p for p in files if b"secret" in p.read_bytes()]
    study = tmp_path / "place" / "search" / "study" / "config.yaml"
    assert "postgresql://***@host/db" in study.read_text()
    table = pd.read_parquet(tmp_path / "place" / "search" / "leaderboard.parquet")
    assert "no connection to postgresql://***@host/db" in list(table["fault"])
    assert list(table["rank"]) == [1, 2, 3, 4]


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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("{search}",), "--to is missing"),
        ((), "one EXPERIMENT_OR_RUN is needed, not 0"),
        (("{tmp}/nothing", "--to", "{tmp}/place"), "is neither a search"),
        (("{search}", "--to", "{tmp}/place", "--trial", "012"), "there is no such trial"),
        (("{search}", "--to", "{tmp}/place", "--trial", "001"), "failed (no connection to postgresql://***@host/db)"),
        (("{search}", "--to", "{tmp}/place", "--trial", "003"), "nothing is left of this trial"),
        (("{search}", "--to", "{tmp}/place", "--metric", "val/mio"), "Did you mean val/miou?"),
        (("{search}", "--to", "{tmp}/place", "--metric", "val/miou:up"), "has the direction 'up'"),
        (("{search}", "--to", "{tmp}/place", "--front", "--trial", "2"), "cannot be used together"),
        (("{search}", "--to", "{tmp}/place", "--top", "-1"), "export.top is -1"),
        (("{search}", "--to", "ftp://host"), "--to 'ftp://host' has the scheme 'ftp'"),
        (("{search}", "--to", "{tmp}/place", "--export.tags", "team"), "export.tags is 'team'"),
        (("{run}", "--to", "{tmp}/place", "--trial", "2"), "is one run with one student"),
        (("--verify", "{search}/trials"), "there is no package"),
        (("--verify", "{tmp}", "--pull", "{tmp}"), "cannot be used together"),
        (("--pull", "{search}"), "needs one new folder after it, not 0"),
        (("--pull", "{search}", "{tmp}/new"), "Name one in it: best/1-002"),
    ],
)
def test_wrong_input_is_answered_in_one_line(
    command: Export, search: Path, run: Distilled, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    places = {"search": search, "run": run.out, "tmp": tmp_path}
    status, _, fault = command(*(argument.format(**places) for argument in arguments))
    assert status == 2
    assert said in fault
    assert fault.count("\n") == 1
    assert not (tmp_path / "place" / "index.json").exists()


def test_an_experiment_without_a_finished_trial_is_refused(command: Export, search: Path, tmp_path: Path) -> None:
    table = pd.read_parquet(search / "leaderboard.parquet")
    table["state"] = "FAIL"
    table.to_parquet(search / "leaderboard.parquet")
    status, _, fault = command(search, "--to", tmp_path / "place")
    assert (status, "has no finished trial" in fault) == (2, True)
    (search / "leaderboard.parquet").unlink()
    assert "it has not ended" in command(search, "--to", tmp_path / "place")[2]


def test_a_student_that_was_changed_is_refused(command: Export, search: Path, tmp_path: Path) -> None:
    weights = search / "best" / "1-002" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    status, _, fault = command(search, "--to", tmp_path / "place", *NO_ONNX)
    assert status == 2
    assert "was changed after its MANIFEST.json was written: model.safetensors has another content" in fault


def test_another_experiment_of_the_same_name_needs_replace(command: Export, search: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    assert command(search, "--to", place, "--top", "2", *NO_ONNX)[0] == 0
    (search / "search.json").write_text(json.dumps({"name": "search", "id": "b"}))
    assert "holds another experiment of the same name" in command(search, "--to", place, *NO_ONNX)[2]
    assert command(search, "--to", place, "--top", "1", "--replace", *NO_ONNX)[0] == 0
    assert [p.name for p in (place / "search" / "students").iterdir()] == ["1-002"]


def test_a_student_whose_rank_changed_is_not_published_twice(command: Export, search: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    assert command(search, "--to", place, "--top", "1", *NO_ONNX)[0] == 0
    table = pd.read_parquet(search / "leaderboard.parquet")
    table["rank"] = [2, 1, 3, 4]
    table.sort_values("rank").to_parquet(search / "leaderboard.parquet")
    assert command(search, "--to", place, "--top", "2", *NO_ONNX)[0] == 0
    assert {p.name for p in (place / "search" / "students").iterdir()} == {"1-002", "1-000"}


def test_a_dry_run_writes_nothing(command: Export, search: Path, tmp_path: Path) -> None:
    said = command(search, "--to", tmp_path / "place", "--top", "1", "--dry-run")[1]
    assert "# would export 1-002 of search" in said
    assert not (tmp_path / "place").exists()


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


def test_what_selects_nothing_is_refused_before_anything_is_written(
    command: Export, search: Path, tmp_path: Path
) -> None:
    table = pd.read_parquet(search / "leaderboard.parquet")
    table["val/knn_top1"], table["front"] = float("nan"), False
    table.to_parquet(search / "leaderboard.parquet")
    for flags, said in ((["--metric", "val/knn_top1"], "has a value of val/knn_top1"), (["--front"], "Pareto front")):
        status, _, fault = command(search, "--to", tmp_path / "place", *flags, *NO_ONNX)
        assert (status, len(fault.splitlines())) == (2, 1)
        assert said in fault
    assert not (tmp_path / "place").exists()


@pytest.mark.parametrize("name", ["..", "../outside", "a/b"])
def test_a_name_that_leads_elsewhere_is_refused(command: Export, search: Path, tmp_path: Path, name: str) -> None:
    (search / "search.json").write_text(json.dumps({"name": name, "id": "a"}))
    status, _, fault = command(search, "--to", tmp_path / "place" / "inner", *NO_ONNX)
    assert status == 2
    assert "cannot be a folder's name" in fault
    assert not (tmp_path / "place").exists()


def test_a_relative_address_has_the_name_of_its_folder(
    command: Export, run: Distilled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.out / "student")
    assert command("..", "--to", tmp_path / "place", *NO_ONNX)[0] == 0
    assert (tmp_path / "place" / run.out.name / "students").is_dir()


def test_two_experiments_of_one_name_do_not_mix_though_the_first_was_cut_off(
    command: Export, search: Path, tmp_path: Path
) -> None:
    shutil.rmtree(search / "trials" / "000")
    assert "has no checkpoint.pt" in command(search, "--to", tmp_path / "place", "--top", "2", *NO_ONNX)[2]
    (search / "search.json").write_text(json.dumps({"name": "search", "id": "b"}))
    assert "another experiment of the same name" in command(search, "--to", tmp_path / "place", *NO_ONNX)[2]
    assert command(search, "--to", tmp_path / "place", "--top", "1", "--replace", *NO_ONNX)[0] == 0
    assert command("--verify", tmp_path / "place")[0] == 0


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


def test_a_listed_package_that_is_gone_is_missed(command: Export, search: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    command(search, "--to", place, "--top", "2", *NO_ONNX)
    (place / "search" / "students" / "2-000" / MANIFEST).unlink()
    status, said, fault = command("--verify", place)
    assert status == 2
    assert "students/2-000 is listed, but is not there as it was published" in fault
    assert "1-002" in said


def test_another_card_of_a_student_is_said(command: Export, search: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    command(search, "--to", place, "--top", "1", *NO_ONNX)
    said = command(search, "--to", place, "--top", "1", "--export.license", "mit", *NO_ONNX)[1]
    assert "(the same student, with another rank, card or format: --replace renews it)" in said
    assert command(search, "--to", place, "--top", "1", "--export.license", "mit", "--replace", *NO_ONNX)[0] == 0
    assert "license: mit" in (place / "search" / "students" / "1-002" / "README.md").read_text()


@pytest.mark.parametrize("name", ["search.json", "leaderboard.parquet", "config.yaml"])
def test_a_damaged_file_of_the_search_is_said_in_a_line(
    command: Export, search: Path, tmp_path: Path, name: str
) -> None:
    (search / name).write_bytes(b"{\x00[")
    status, _, fault = command(search, "--to", tmp_path / "place", *NO_ONNX)
    assert (status, len(fault.splitlines())) == (2, 1)
    assert "is damaged" in fault
    assert name in fault
