"""Every source of images keeps its contract, and another one takes no more than its page says."""

from __future__ import annotations

import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import singer_ray
from singer_ray.config import Config, EvaluationSourceConfig, SourceConfig, field_names
from singer_ray.config.sources import FOLDERS, FROM_PYTHON, SOURCES, SourceEntry, implied_source
from singer_ray.data.source import Source
from singer_ray.data.splits import open_splits
from singer_ray.errors import UserError

PACKAGE = Path(singer_ray.__file__).parent
PAGE = PACKAGE / "data" / "README.md"
EACH = pytest.mark.parametrize(("name", "entry"), SOURCES.items(), ids=list(SOURCES))


def test_the_names_that_are_allowed_are_those_of_the_registry() -> None:
    assert get_args(SourceConfig.model_fields["source"].annotation) == tuple(SOURCES)
    assert get_args(EvaluationSourceConfig.model_fields["source"].annotation) == ("same", *SOURCES)


@EACH
def test_an_entry_names_a_function_and_settings_that_exist(name: str, entry: SourceEntry) -> None:
    assert name == name.lower()
    assert callable(pkgutil.resolve_name(entry.opener))
    assert {f"data.{setting}" for setting in entry.reads} <= set(field_names())
    assert set(entry.for_scores) | set(entry.implied_by) <= set(entry.reads)
    described = entry.describe(Config().data.model_dump() | {"train": "images"}, lambda text: f"`{text}`")
    assert described
    assert entry.words


@EACH
def test_settings_of_the_block_mean_at_most_one_source(name: str, entry: SourceEntry) -> None:
    for setting in entry.implied_by:
        assert implied_source([setting]) == name
    assert implied_source(["exif", "scenes.seed"]) is None


def test_every_setting_of_the_block_is_read_by_some_source() -> None:
    block = {name.removeprefix("evaluation.data.") for name in field_names() if name.startswith("evaluation.data.")}
    assert {setting for entry in SOURCES.values() for setting in entry.reads} == block - {"source"}
    assert set(FOLDERS) < block


def test_the_built_in_sets_are_as_many_scenes_as_the_settings_say() -> None:
    small = {f"data.scenes.{split}_images": count for split, count in (("train", 5), ("val", 3), ("test", 4))}
    splits = open_splits(Config().override(small).data)
    assert {split: len(source) for split, source in splits.items()} == {"train": 5, "val": 3, "test": 4}
    assert all(isinstance(source, Source) for source in splits.values())


def test_what_a_command_line_cannot_open_is_refused_by_its_block() -> None:
    config = Config().override({"data.source": FROM_PYTHON, "evaluation.data.source": "imagefolder"})
    with pytest.raises(UserError, match=r"^data.source own takes data sets from Python"):
        open_splits(config.data)
    with pytest.raises(UserError, match=r"^evaluation.data.source imagefolder needs --evaluation.data.train DIR"):
        open_splits(config.evaluation.data, "evaluation.data")


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package to which the source of the page was added, and with images for it."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(PACKAGE, folder / "singer_ray", ignore=shutil.ignore_patterns("__pycache__"))
    source, entry = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    (folder / "singer_ray" / "data" / "arrays.py").write_text(source)
    registry = folder / "singer_ray" / "config" / "sources.py"
    opening = "SOURCES: dict[str, SourceEntry] = {\n"
    assert opening in registry.read_text()
    registry.write_text(registry.read_text().replace(opening, opening + entry))
    for split in ("train", "val"):
        (folder / split).mkdir()
        np.save(folder / split / "images.npy", np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), np.uint8))
        np.save(folder / split / "labels.npy", np.arange(8) % 2)
    return folder


@pytest.mark.long
def test_another_source_takes_what_the_page_says(extended: Path) -> None:
    program = """
import sys
from singer_ray import train
from singer_ray.cli import run_command
from singer_ray.config import Config
from singer_ray.config.sources import SOURCES
from singer_ray.data.splits import open_splits
assert run_command(train.COMMAND, train.main, sys.argv[1:]) == 0
settings = {"data.source": "arrays", "data.train": "train", "data.val": "val"}
config = Config().override({**settings, **{f"evaluation.{name}": value for name, value in settings.items()}})
for block in (config.data, config.evaluation.data):
    sample = open_splits(block)["val"][1]
    print(tuple(sample["image"].shape), sample["label"], SOURCES[block.source].describe(block.model_dump(), repr))
"""
    arguments = ["--dry-run", "--data.source", "arrays", "--data.train", "train", "--data.val", "val"]
    dead = ["--data.scenes.seed", "3", "--data.test_masks", "val"]
    command = [sys.executable, "-c", program, *arguments, *dead]
    done = subprocess.run(command, cwd=extended, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "  source: arrays\n" in done.stdout
    assert "remark: data.scenes.seed has no effect: data.source is 'arrays'" in done.stdout
    assert "remark: data.test_masks has no effect: data.source is 'arrays'" in done.stdout
    assert "remark: data.val has" not in done.stdout
    assert done.stdout.splitlines()[-2:] == ["(3, 32, 32) 1 arrays in 'train'"] * 2
