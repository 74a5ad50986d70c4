"""A server, a bucket, and packages to bring there."""

from __future__ import annotations

from pathlib import Path

import pytest

from singer_ray.config import load_preset
from singer_ray.distillation import Distilled, run_distillation
from tests.conftest import SMALL
from tests.publishing.faults import make_package


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with a manifest."""
    make_package(tmp_path / "made", 0, large=False)
    return tmp_path / "made"


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Distilled:
    """A small student, trained."""
    return run_distillation(load_preset("demo").override(SMALL), tmp_path_factory.mktemp("package") / "run")
