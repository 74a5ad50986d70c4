"""The wheel in an environment of its own, used from another directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import singer_ray

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel was installed into, its script too."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    install = [sys.executable, "-m", "uv", "pip", "install", "--offline", "--no-deps", "--python", sys.executable]
    subprocess.run([*install, "--target", str(folder / "site"), str(wheel)], check=True, capture_output=True)
    return folder / "site"


def run(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in `folder` with the wheel before the editable checkout."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def python(site: Path, folder: Path, *arguments: str) -> str:
    """What Python prints."""
    done = run(site, folder, sys.executable, *arguments)
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
    assert "would search method.linearization" in plan
    shape = python(
        site, tmp_path, "-c", "from singer_ray.vision.models import load_teacher as t; print(len(t('demo', 32).blocks))"
    )
    assert shape.strip() == "6"


def test_the_script_runs_the_commands_under_its_own_name(site: Path, tmp_path: Path) -> None:
    script = str(site / "bin" / "singer-ray")
    listed = run(site, tmp_path, script)
    assert (listed.returncode, "  singer-ray tune      searches" in listed.stdout) == (0, True)
    versions = {
        run(site, tmp_path, *words, "--version").stdout
        for words in ((script,), (script, "tune"), (sys.executable, "-m", "singer_ray.tune"))
    }
    assert versions == {f"singer_ray {singer_ray.__version__}\n"}
    plans = [
        run(site, tmp_path, *words, "--dry-run", "--trials", "3", "--out", "runs/x").stdout
        for words in (
            (script, "tune"),
            (sys.executable, "-m", "singer_ray", "tune"),
            (sys.executable, "-m", "singer_ray.tune"),
        )
    ]
    assert plans[0] == plans[1] == plans[2]
    assert "# 3 trials, into runs/x" in plans[0]
    wrong = run(site, tmp_path, script, "train", "--epoch", "3")
    assert (wrong.returncode, wrong.stderr.partition(": ")[0]) == (2, "singer-ray train")
    assert run(site, tmp_path, script, "trian").stderr.startswith("singer-ray: unrecognized argument 'trian'.")
