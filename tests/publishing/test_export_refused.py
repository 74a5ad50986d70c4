"""What the command refuses to export, in one line and before anything is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from singer_ray.distillation import Distilled
from tests.publishing.conftest import NO_ONNX, Export


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


def test_two_experiments_of_one_name_do_not_mix_though_the_first_was_cut_off(
    command: Export, search: Path, tmp_path: Path
) -> None:
    shutil.rmtree(search / "trials" / "000")
    assert "has no checkpoint.pt" in command(search, "--to", tmp_path / "place", "--top", "2", *NO_ONNX)[2]
    (search / "search.json").write_text(json.dumps({"name": "search", "id": "b"}))
    assert "another experiment of the same name" in command(search, "--to", tmp_path / "place", *NO_ONNX)[2]
    assert command(search, "--to", tmp_path / "place", "--top", "1", "--replace", *NO_ONNX)[0] == 0
    assert command("--verify", tmp_path / "place")[0] == 0


@pytest.mark.parametrize("name", ["search.json", "leaderboard.parquet", "config.yaml"])
def test_a_damaged_file_of_the_search_is_said_in_a_line(
    command: Export, search: Path, tmp_path: Path, name: str
) -> None:
    (search / name).write_bytes(b"{\x00[")
    status, _, fault = command(search, "--to", tmp_path / "place", *NO_ONNX)
    assert (status, len(fault.splitlines())) == (2, 1)
    assert "is damaged" in fault
    assert name in fault
