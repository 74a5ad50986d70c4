"""A server, a bucket, and packages to bring there."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from singer_ray.config import load_preset
from singer_ray.distillation import Distilled, run_distillation
from tests.conftest import SMALL
from tests.publishing.faults import make_package
from tests.publishing.servers import CREDENTIALS, ENVIRONMENT, moto_server


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of an S3 server in a process of its own."""
    with moto_server() as address:
        yield address


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket on it; credentials are in the environment."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    name = f"students-{uuid.uuid4().hex[:8]}"
    boto3.client("s3", endpoint_url=server, **CREDENTIALS).create_bucket(Bucket=name)
    return name


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with a manifest."""
    make_package(tmp_path / "made", 0, large=False)
    return tmp_path / "made"


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Distilled:
    """A small student, trained."""
    return run_distillation(load_preset("demo").override(SMALL), tmp_path_factory.mktemp("package") / "run")
