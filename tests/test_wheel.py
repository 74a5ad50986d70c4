"""The wheel in an environment of its own, used from another directory."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel was unpacked into, as an installer does."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(folder / "site")
    return folder / "site"


def python(site: Path, folder: Path, *arguments: str) -> str:
    """Runs Python in `folder` with the wheel before the editable checkout; its output."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_the_wheel_that_runs(site: Path, tmp_path: Path) -> None:
    where = python(site, tmp_path, "-c", "import singer_ray; print(singer_ray.__file__)")
    assert where.startswith(str(site))


def test_presets_spaces_clusters_and_teachers_are_inside(site: Path) -> None:
    names = {str(p.relative_to(site)) for p in site.rglob("*") if p.is_file()}
    wanted = [
        f"singer_ray/{folder}/{p.name}" for folder in ("tune_spaces", "clusters") for p in ROOT.glob(f"{folder}/*.yaml")
    ]
    wanted += [f"singer_ray/presets/{p.name}" for p in ROOT.glob("singer_ray/presets/*.yaml")]
    wanted.append("singer_ray/py.typed")
    assert len(wanted) >= 7
    assert not set(wanted) - names
    for teacher in ("planted", "clean"):
        weights = site / "singer_ray" / "vision" / "demo_teacher" / teacher / "model.safetensors"
        assert 100_000 < weights.stat().st_size <= 1.4e6
    assert not [name for name in names if name.startswith("tests/")]
    guides = {name for name in names if name.endswith("README.md")}
    assert guides == {"singer_ray/clusters/README.md", "singer_ray/tune_spaces/README.md"}


def test_shipped_names_are_found_from_any_directory(site: Path, tmp_path: Path) -> None:
    plan = python(site, tmp_path, "-m", "singer_ray.tune", "--dry-run")
    assert "would search method.rank" in plan
    shape = python(
        site, tmp_path, "-c", "from singer_ray.vision.models import load_teacher as t; print(len(t('demo', 32).blocks))"
    )
    assert shape.strip() == "6"
