"""The page about a search, and the command that writes it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import plotly.offline
import pytest

from singer_ray import report
from singer_ray.cli import run_command
from singer_ray.reporting.page.search_page import build_report
from singer_ray.reporting.reading.search_reader import read_search
from tests.reporting.searches import RANK, REFINERS, SINGER, fake_search, journal_of

PLOTLY = str(plotly.offline.get_plotlyjs())


def text_of(page: Path) -> str:
    """What a reader sees: no scripts, styles or tags."""
    content = page.read_text(encoding="utf-8").replace(PLOTLY, "")
    content = re.sub(r"<(script|style)\b.*?</\1>", " ", content, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", content).split())


def test_the_page_tells_what_the_search_found(finished: Path, tmp_path: Path) -> None:
    page = build_report(finished, tmp_path / "page.html")
    search, text = read_search(finished), text_of(page)
    best = search.best
    assert best is not None
    assert best.values is not None
    assert best.values[0] == max(t.values[0] for t in search.trials if t.state == "COMPLETE" and t.values)
    folder = finished / "best" / f"1-{best.id}"
    for said in (
        "finished",
        f"{best.values[0]:.4f}",
        f"test {best.values[0] - 0.008:.4f}",
        "over 3 seeds",
        "40",
        "2 sessions",
        "5 earlier trials of s3://bucket/earlier",
        f"python -m singer_ray.train --preset {folder}/config.yaml",
        f"local-dir:{folder}",
        "$3.21",
        "GPU-hours",
        "method.outlier_quantile",
    ):
        assert said in text, said
    assert sum(search.count(s) for s in ("COMPLETE", "PRUNED", "FAIL")) == 40
    assert page.read_text().replace(PLOTLY, "").count("data:image/png;base64,") == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"trials": 0}, "No trial has begun."),
        ({"trials": 1, "states": ["COMPLETE"]}, "Too few finished trials (1): importances need 10."),
        ({"trials": 2, "states": ["RUNNING", "RUNNING"], "files": False}, "The search is not over"),
        ({"trials": 3, "states": ["FAIL"] * 3}, "No trial has finished"),
        ({"trials": 4, "states": ["PRUNED"] * 4}, "No trial has finished"),
        ({"trials": 14, "space": RANK}, "One parameter alone was searched"),
        ({"trials": 14, "space": {}}, "Leaderboard"),
        ({"trials": 40, "space": REFINERS}, "Refiners compared"),
        ({"objectives": ("val/miou", "student/parameters")}, "Trials of the front"),
        ({"objectives": ("val/miou", "val/depth_rmse", "student/parameters")}, "Three objectives"),
        ({"objectives": ("val/depth_rmse",)}, "best val/depth_rmse"),
        ({"states": ["PRUNED"] * 5, "trials": 5, "objectives": ("val/miou", "student/parameters")}, "no front yet"),
        ({"files": False, "imported": 3}, "was not exported"),
    ],
    ids=lambda value: value if isinstance(value, str) else "search",
)
def test_a_page_comes_of_any_search(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    page = build_report(fake_search(tmp_path / "search", **settings))
    text = text_of(page)
    assert said in text
    assert not re.search(r"\b(None|nan|NaN|inf)\b", text)
    for data in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page.read_text(), flags=re.S):
        assert json.loads(data)["data"], "a figure without data"


def test_without_an_exported_student_the_command_names_every_parameter(tmp_path: Path) -> None:
    folder = fake_search(tmp_path / "search", space=REFINERS)
    shutil.rmtree(folder / "best")
    best = read_search(folder).best
    assert best is not None
    text = text_of(build_report(folder))
    assert f"--preset {folder}/config.yaml" in text
    assert all(f"--{name} {value}" in text for name, value in best.parameters.items())


def test_what_trials_said_cannot_become_markup(finished: Path, tmp_path: Path) -> None:
    content = build_report(finished, tmp_path / "page.html").read_text().replace(PLOTLY, "")
    assert "loss &lt;b&gt;diverged&lt;/b&gt; &amp; stopped" in content
    assert "<b>diverged" not in content


def test_passwords_of_addresses_stay_out(finished: Path, tmp_path: Path) -> None:
    older = tmp_path / "older"  # what wrote it kept passwords
    shutil.copytree(finished, older)
    kept = (older / "config.yaml").read_text()
    assert "hunter2" not in kept
    (older / "config.yaml").write_text(kept.replace("postgresql://me@db/x", "postgresql://me:hunter2@db/x"))
    assert "hunter2" in (older / "config.yaml").read_text()
    content = build_report(older, tmp_path / "page.html").read_text()
    assert "hunter2" not in content
    assert "postgresql://***@db/x" in content


@pytest.mark.slow
def test_500_trials_stay_readable_by_any_browser(tmp_path: Path) -> None:
    page = build_report(fake_search(tmp_path / "search", trials=500, epochs=100))
    assert page.stat().st_size - len(PLOTLY.encode()) < 1.2e6


def test_the_page_is_the_only_thing_written(finished: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    build_report(finished, tmp_path / "deep" / "page.html")
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["page.html"]


@pytest.mark.slow
def test_large_pictures_are_stored_smaller(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    folder = fake_search(tmp_path / "search")
    picture = next(folder.glob("best/1-*/pictures/pca.png"))
    noise = np.random.default_rng(0).integers(0, 255, (1600, 1600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(picture)
    page = build_report(folder)
    assert "data:image/webp;base64," in page.read_text().replace(PLOTLY, "")
    assert page.stat().st_size - len(PLOTLY.encode()) < picture.stat().st_size


def run(*argv: object) -> int:
    return run_command(report.COMMAND, report.main, [str(each) for each in argv])


def test_the_command_says_where_it_wrote(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(finished, "--out", tmp_path / "page.html") == 0
    assert f"Wrote {tmp_path}/page.html" in capsys.readouterr().out
    assert run(finished, "--dry-run") == 0
    assert f"write {finished}/report.html" in capsys.readouterr().out
    assert not (finished / "report.html").exists()


def test_a_moved_folder_is_still_the_search(tmp_path: Path) -> None:
    folder = fake_search(tmp_path / "first", trials=3, files=False)
    folder.rename(tmp_path / "second")
    assert read_search(tmp_path / "second").name == "first"


def broken(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path.parent


def test_mistakes_are_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = fake_search(tmp_path / "good", trials=2, space=SINGER)
    lines = journal_of(good).read_text().splitlines()
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    cases: list[tuple[list[object], str]] = [
        ([], "one folder is needed"),
        ([good, tmp_path], "2 are given"),
        ([tmp_path / "nowhere"], "is not a folder"),
        ([tmp_path / "empty"], "is not a search"),
        ([broken(tmp_path / "a" / "study.journal", "\n".join(["no journal", *lines]) + "\n")], "cannot be read"),
        ([broken(tmp_path / "b" / "study.journal", "")], "cannot be read"),
        ([broken(tmp_path / "c" / "search.json", "{")], "search.json is not valid JSON"),
        ([broken(tmp_path / "d" / "search.json", '{"name": "d", "study": null}')], "has no study.journal"),
        ([good, "--out", tmp_path / "file" / "page.html"], "cannot be written"),
        ([good, "--out", tmp_path / "empty"], "cannot be written"),
    ]
    for argv, said in cases:
        assert run(*argv) == 2, argv
        error = capsys.readouterr().err
        assert said in error
        assert error.startswith("python -m singer_ray.report: ")
        assert error.count("\n") == 1
