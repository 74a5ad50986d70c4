"""Settings that make a whole run take seconds, and the tools that tests share.

What takes long to import is imported where it is used: the process that deals out the tests reads this file too.
"""

from __future__ import annotations

import gc
import os
import sys

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
# Ray's workers give way to everything else by default: beside another busy test process they would get no time.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (so Ray spells it)

import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import browser as browser
from tests.servers import CREDENTIALS, ENVIRONMENT, s3_server

if TYPE_CHECKING:
    from singer_ray.config import Config

# What is imported and collected stays: to look through it again and again for garbage takes a third of the time.
gc.disable()
# A shell's background jobs ignore Ctrl-C, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

SMALL: dict[str, Any] = {
    "data.scenes.train_images": 256,
    "data.scenes.val_images": 64,
    "data.scenes.test_images": 64,
    "train.epochs": 2,
    "train.steps_per_epoch": 3,
    "train.batch_size": 16,
    "evaluation.fit_images": 64,
}
"""The demo preset, cut down to seconds."""
FITTED: dict[str, Any] = {
    "method.linearization": "attention_mlp",
    "method.freeze": False,
    "method.prefit.steps": 3,
    "method.prefit.batch_size": 8,
}
"""An adapter that is fitted for a moment, and learns beside the student."""


@pytest.hookimpl(tryfirst=True)  # before pytest looks at -m
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks `quick` what needs no Ray, browser or server and takes no time; keeps what starts Ray in one process.

    That comes first: one process is busy with it from the start, while the other does the rest. Tests that share a
    costly fixture also stay together, or each process would make it for itself.
    """
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)
    for item in items:
        if item.get_closest_marker("ray"):  # the commands use whatever Ray cluster they find on this machine
            item.add_marker(pytest.mark.xdist_group("ray"))
        elif shared := _shared(item):
            item.add_marker(pytest.mark.xdist_group(shared))
        fixtures = set(getattr(item, "fixturenames", ()))
        marked = any(item.get_closest_marker(name) for name in ("ray", "slow", "long"))
        if not marked and fixtures.isdisjoint({"server", "browser"}):
            item.add_marker(pytest.mark.quick)


def _shared(item: Any) -> str | None:
    """Whose fixtures for several tests a test uses: its module's, or its folder's; None for none."""
    found = [given[-1] for given in item._fixtureinfo.name2fixturedefs.values()]
    if any(fixture.scope == "module" for fixture in found):
        return str(item.nodeid.partition("::")[0])
    folders = [fixture.baseid for fixture in found if fixture.scope != "function"]
    return next((folder for folder in folders if folder not in ("", "tests")), None)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fails where pytest-xdist would not keep together what starts Ray, which it tells by an ending of the id."""
    gc.collect()
    gc.freeze()
    gc.enable()
    if getattr(session.config.option, "loadgroup", False):
        alone = [item.nodeid for item in session.items if item.get_closest_marker("ray") and "@ray" not in item.nodeid]
        assert not alone, f"pytest-xdist does not group tests with this pytest {pytest.__version__}: {alone[0]}"


def pytest_unconfigure() -> None:
    gc.unfreeze()  # extension modules look for what is left of them as the process ends


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _quick_tests_start_no_ray(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if request.node.get_closest_marker("quick") and "ray" in sys.modules:
        assert not sys.modules["ray"].is_initialized(), "mark it with pytest.mark.ray"


@pytest.fixture
def small() -> Config:
    """The built-in demonstration with a few steps on a few scenes."""
    from singer_ray.config import load_preset

    return load_preset("demo").override(SMALL)


@pytest.fixture
def fitted(small: Config) -> Config:
    """The same with an adapter that is fitted."""
    return small.override(FITTED)


@pytest.fixture
def small_arguments() -> list[str]:
    """The same on the command line."""
    return [part for name, value in SMALL.items() for part in (f"--{name}", str(value))]


@pytest.fixture
def image_tree(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder of PNG files: `image_tree("train", {"a": 3, "b": 2})`, or `{"": 5}` without classes."""
    import numpy as np
    from PIL import Image

    def write(name: str, classes: dict[str, int], size: int = 40) -> Path:
        rng = np.random.default_rng(len(name))
        for number, (label, count) in enumerate(classes.items()):
            folder = tmp_path / name / label
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = rng.integers(0, 255, (size, size + 8, 3), dtype=np.uint8) // 2 + 60 * (number % 3)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
        return tmp_path / name

    return write


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of an S3 server in a process of its own."""
    with s3_server() as address:
        yield address


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket on it; credentials are in the environment."""
    import boto3

    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    boto3.client("s3", endpoint_url=server, **CREDENTIALS).create_bucket(Bucket=name)
    return name
