"""Experiments and packages of strangers: what they name is neither followed out of them nor waited for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pandas as pd
import pytest

from singer_ray import export
from singer_ray.cli import run_command
from singer_ray.errors import UserError
from singer_ray.finalize import finalize_search
from singer_ray.layout import MANIFEST
from singer_ray.publishing.delivery import _listed_experiment, listed_packages
from singer_ray.publishing.experiment import Experiment
from singer_ray.publishing.packages.manifest import Manifest, write_manifest
from singer_ray.publishing.packages.store import Store
from singer_ray.publishing.selection import SelectedStudent, Selection
from singer_ray.publishing.table import trial_in
from singer_ray.reporting.reading.search_reader import _students, _text
from singer_ray.search.study.schema import label_of
from singer_ray.storage import Folder
from tests.publishing.strangers import manifest_of, package_in, search_in
from tests.servers import CREDENTIALS


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of mine."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "key").write_text("secret")
    return tmp_path / "mine" / "key"


@pytest.mark.parametrize("name", ["best/1-002/x", "best/1-002", "space.yaml", "leaderboard.csv", "search.json"])
def test_links_that_lead_out_of_an_experiment_are_not_published(tmp_path: Path, secret: Path, name: str) -> None:
    out = search_in(tmp_path / "search")
    path = out / name
    if path.is_dir():
        path.rename(secret.parent / "student")
        path.symlink_to(secret.parent / "student")
    else:
        path.unlink(missing_ok=True)
        path.symlink_to(secret)

    def read() -> None:
        experiment = Experiment(str(out))
        experiment.study_files()
        experiment.stage(SelectedStudent(1, "002"), tmp_path / "draft")

    with pytest.raises(UserError, match=r"leads out of .*search, by a link to .*mine"):
        read()
    assert not [path for path in tmp_path.rglob("x") if path.is_file() and not path.is_symlink()]


def test_a_report_shows_nothing_that_links_lead_to(tmp_path: Path, secret: Path) -> None:
    out = search_in(tmp_path / "search")
    (out / "space.yaml").unlink()
    (out / "space.yaml").symlink_to(secret)
    with pytest.raises(UserError, match="leads out of"):
        _text(out, "space.yaml")
    (out / "best" / "1-002" / "pictures").mkdir()
    (out / "best" / "1-002" / "pictures" / "pca.png").symlink_to(secret)
    with pytest.raises(UserError, match="leads out of"):
        _students(out)


@pytest.mark.parametrize("trial", ["b/../../x", "..", "", "7 ", "٣", "003-seed", "003-seedx", "003\n", "1-2", 7, None])
def test_a_trial_id_that_no_search_writes_is_refused(tmp_path: Path, trial: Any) -> None:
    out = search_in(tmp_path / "search")
    table = pd.read_parquet(out / "leaderboard.parquet")
    table["id"] = [trial]
    table.to_parquet(out / "leaderboard.parquet")
    with pytest.raises(
        UserError, match=r"leaderboard.parquet has a trial .*Allowed: numbers, such as 007 or 007-seed1"
    ):
        Experiment(str(out))


def test_trial_ids_as_searches_write_them(tmp_path: Path) -> None:
    out = search_in(tmp_path / "search", "003-seed1")
    assert [choice.name for choice in Experiment(str(out)).choose(Selection())] == ["1-003-seed1"]
    assert [trial_in(name) for name in ("1-002", "12-1003-seed7", "1-x", "x-002", "1", "¹-002")] == [
        "002",
        "1003-seed7",
        None,
        None,
        None,
        None,
    ]
    assert (label_of(3), label_of(3, 1)) == ("003", "003-seed1")
    for number, seed in (("3", None), (3, "1/../../x"), (True, None), (-1, None), (3, 1.5)):
        with pytest.raises(UserError, match="which no search writes"):
            label_of(number, seed)  # type: ignore[arg-type]


def test_a_damaged_leaderboard_is_said_in_a_line(tmp_path: Path) -> None:
    out = search_in(tmp_path / "search")
    good = pd.read_parquet(out / "leaderboard.parquet")
    for table, said in (
        (good.drop(columns="state"), "has no column 'state'"),
        (good.assign(rank=["x"]), "has ranks that are no numbers from 1"),
        (good.assign(rank=[-1]), "has ranks that are no numbers from 1"),
    ):
        table.to_parquet(out / "leaderboard.parquet")
        with pytest.raises(UserError, match=said):
            Experiment(str(out))


@pytest.mark.parametrize("name", ["a/../b", "\x1b[2J", "x" * 256, "caf\udce9", "x.draft", "x.aside", "a\nb"])
def test_a_name_that_no_store_could_keep_is_refused(tmp_path: Path, name: str) -> None:
    out = search_in(tmp_path / "search")
    (out / "search.json").write_text(json.dumps({"name": name, "id": "a"}))
    with pytest.raises(UserError, match="cannot be a folder's name") as caught:
        _ = Experiment(str(out)).name
    assert str(caught.value).isprintable()


def test_a_file_whose_name_cannot_be_published_is_named(tmp_path: Path) -> None:
    out = search_in(tmp_path / "search")
    odd = os.fsencode(out / "best" / "1-002") + b"/caf\xe9"
    with open(odd, "w") as file:
        file.write("x")
    with pytest.raises(UserError, match=r"holds the file 'caf\\\\udce9', under whose name nothing can be published"):
        Experiment(str(out)).stage(SelectedStudent(1, "002"), tmp_path / "draft")
    with pytest.raises(UserError, match=r"caf\\\\udce9.*Rename it"):
        Manifest.of(out / "best" / "1-002")


FILES = {"config.json": b"{}", "model.safetensors": b"weights"}
BAD = {
    "no file": ({}, "names no file: it is not a package"),
    "outside": ({"../x": b""}, "names the file '../x', outside the package"),
    "absolute": ({"/x": b""}, "names the file '/x', outside the package"),
    "escape": ({"\x1b[2J": b""}, r"names the file '\\x1b[2J', outside the package"),
    "undecodable": ({"caf\udce9": b""}, "outside the package"),
    "long": ({"x" * 256: b""}, "outside the package"),
    "draft": ({**FILES, "a.part": b"x"}, "names the file 'a.part': what ends in .part is a draft"),
}


@pytest.mark.parametrize("kind", ["folder", pytest.param("s3", marks=pytest.mark.slow)])
@pytest.mark.parametrize("bad", BAD)
def test_a_manifest_that_no_package_has_is_refused_by_verify_and_pull(
    bad: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    files, said = BAD[bad]
    if kind == "folder":
        store = Store(str(package_in(tmp_path / "inner" / "package", files)), writable=False)
    else:
        server, bucket = request.getfixturevalue("server"), request.getfixturevalue("bucket")
        client = boto3.client("s3", endpoint_url=server, **CREDENTIALS)
        client.put_object(Bucket=bucket, Key=f"x/{MANIFEST}", Body=manifest_of(files))
        store = Store(f"s3://{bucket}/x", server, writable=False)
    acts: list[Callable[[], object]] = [lambda: store.verify(""), lambda: store.pull("", tmp_path / "pulled")]
    for act in acts:
        with pytest.raises(UserError) as caught:
            act()
        assert said in str(caught.value)
        assert str(caught.value).isprintable()
    assert not (tmp_path / "pulled").exists()


@pytest.mark.parametrize(
    "entry",
    [
        {"bytes": -1, "sha256": "0" * 64},
        {"bytes": True, "sha256": "0" * 64},
        {"bytes": "3", "sha256": "0" * 64},
        {"bytes": 3, "sha256": "\x1b[2J"},
        {"bytes": 3, "sha256": None},
        {"bytes": 3},
    ],
)
def test_sizes_and_hashes_that_no_file_has_are_refused(entry: dict[str, Any]) -> None:
    tree = {"format": 1, "package": "", "files": {"x": entry}}
    with pytest.raises(UserError, match="is not a manifest"):
        Manifest.parse(json.dumps(tree).encode(), "place")


@pytest.mark.parametrize("name", ["model.safetensors", "pictures/pca.png", MANIFEST])
@pytest.mark.parametrize("what", ["pipe", "link"])
def test_verify_and_pull_wait_for_no_pipe_and_follow_no_link(
    tmp_path: Path, secret: Path, name: str, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    package = package_in(tmp_path / "package", {**FILES, "pictures/pca.png": b"picture"})
    (package / name).unlink()
    if what == "pipe":
        os.mkfifo(package / name)
    else:
        (package / name).symlink_to(secret)
    for arguments in (["--verify", str(package)], ["--pull", str(package), str(tmp_path / "new")]):
        assert run_command(export.COMMAND, export.main, arguments) == 2
        said = capfd.readouterr().err
        assert said.count("\n") == 1
        assert any(s in said for s in ("is not a regular file", "leads out of", "there is no package")), said
    assert not (tmp_path / "new").exists()


def test_a_list_that_names_what_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "place"
    package_in(place / "search" / "students" / "1-002", FILES)
    for student in ({"path": "search/../../x", "package": ""}, {"path": "search"}, "x"):
        (place / "search" / "experiment.json").write_text(json.dumps({"students": [student]}))
        with pytest.raises(UserError, match=r"experiment.json is damaged"):
            listed_packages(Store(str(place)))


def test_what_somebody_else_has_put_beside_the_students_is_passed_over(tmp_path: Path) -> None:
    out = search_in(tmp_path / "search")
    package_in(tmp_path / "place" / "search" / "students" / "foo-bar", {"result.json": b"{}"})
    listed = json.loads(_listed_experiment(Experiment(str(out)), Store(str(tmp_path / "place"))))
    assert listed["students"] == []


def test_a_key_in_s3_that_would_lead_out_of_a_student_is_not_fetched(
    server: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    out = search_in(tmp_path / "search")
    client = boto3.client("s3", endpoint_url=server, **CREDENTIALS)
    for path in (p for p in out.rglob("*") if p.is_file()):
        client.put_object(Bucket=bucket, Key=f"search/{path.relative_to(out).as_posix()}", Body=path.read_bytes())
    client.put_object(Bucket=bucket, Key="search/best/1-002/a\\..\\b", Body=b"x")
    with pytest.raises(UserError, match="under whose name nothing can be published"):
        Experiment(f"s3://{bucket}/search").stage(SelectedStudent(1, "002"), tmp_path / "draft")


def test_what_is_brought_to_the_copy_is_the_searchs_own(tmp_path: Path, secret: Path) -> None:
    out, remote = search_in(tmp_path / "search"), Folder(str(tmp_path / "copy"))
    (out / "leaderboard.csv").symlink_to(secret)
    done: Any = SimpleNamespace(
        out=out, store=SimpleNamespace(remote=remote), config=SimpleNamespace(export=SimpleNamespace(to=None)), best=()
    )
    with pytest.raises(UserError, match="leads out of"):
        finalize_search(done, lambda line: None)
    assert not (tmp_path / "copy" / "leaderboard.csv").exists()


@pytest.mark.slow
def test_an_address_is_never_cut(server: str, bucket: str, package: Path, tmp_path: Path) -> None:
    """What lies at PREFIX is not that of PREFIX#x or PREFIX?x: it would be overwritten."""
    first = Store(f"s3://{bucket}/students", server)
    first.put(package, "x")
    (package / "README.md").write_text("another")
    for number, prefix in enumerate(("students#v2", "students?v=3", "students %41", "ü+&")):
        (package / MANIFEST).unlink()
        (package / "README.md").write_text(f"another {number}")
        write_manifest(package)
        store = Store(f"s3://{bucket}/{prefix}", server)
        assert store.packages() == []
        store.put(package, "x", replace=True)
        assert store.verify("x").digest != first.verify("x").digest
        assert Store(f"s3://{bucket}/{prefix}/x", server).pull("", tmp_path / str(number)) == store.find("x")
