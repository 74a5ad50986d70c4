"""What is wrong with the data is said before the first step, and stands in every result."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from singer_ray.api import distill
from singer_ray.config import Config
from singer_ray.data.scenes import Scenes
from singer_ray.distillation import run_distillation
from singer_ray.errors import UserError
from singer_ray.publishing.card import card
from singer_ray.publishing.result import build_result
from singer_ray.reporting.reading.findings import CAUTION, findings
from singer_ray.reporting.reading.search_reader import read_search
from singer_ray.search.workers.trainer_actor import TrainerActor
from singer_ray.storage import Folder
from singer_ray.training.context import TrainContext
from singer_ray.training.launch import Inputs
from tests.conftest import SMALL
from tests.reporting.searches import fake_search

Tree = Callable[..., Path]
QUICK = {**SMALL, "train.epochs": 1, "train.steps_per_epoch": 1, "train.batch_size": 4, "method.refiner": "none"}


@pytest.fixture
def shared(image_tree: Tree) -> Config:
    """One class, and validation images that are the training images."""
    root = image_tree("train", {"images": 6})
    return Config().override(
        {**QUICK, "data.source": "imagefolder", "data.train": str(root), "data.val": str(root), "data.image_size": 32}
    )


@pytest.mark.slow
def test_a_run_says_it_first_and_writes_it_down(shared: Config, tmp_path: Path) -> None:
    said: list[str] = []
    done = run_distillation(shared, tmp_path / "out", log=said.append)
    notes = [line.removeprefix("note: ") for line in said if line.startswith("note: ")]
    assert said[: len(notes)] == [f"note: {note}" for note in notes], "notes come first, each once"
    assert notes[0].startswith("not measured: val/linear_top1, val/knn_top1, because all training images are of one")
    assert notes[1].startswith("validation images are among the training images: 6 of 6 compared")
    assert not any("top1" in name for name in done.metrics)
    result = json.loads((done.out / "result.json").read_text())
    assert result["remarks"] == notes
    text = (done.student / "README.md").read_text()
    assert "6 of 6 compared (with 6 training images) are the same files" in text
    assert not (done.student / "head.safetensors").exists()


def test_ordinary_data_gets_no_remark(small: Config) -> None:
    assert TrainContext(small).remarks == []


class Own:
    classes = ("a", "b")

    def __init__(self, *labels: int, seed: int = 0) -> None:
        self.labels = labels
        self.images = np.random.default_rng(seed).integers(0, 255, (len(labels), 32, 32, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.images[index], self.labels[index]


@pytest.mark.parametrize("wrong", [-1, 2])
@pytest.mark.parametrize("split", ["train", "val"])
def test_own_labels_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path: Path, split: str, wrong: int
) -> None:
    data = {"train": Own(0, 1, 0, 1), "val": Own(0, 1, seed=1)} | {split: Own(0, 1, wrong, 0, seed=2)}
    with pytest.raises(UserError, match=rf"the label of image 2 is {wrong}. Allowed: 0 to 1"):
        distill(None, data, out=tmp_path / "out", settings=QUICK)
    assert not (tmp_path / "out").exists()


def test_a_host_tells_what_the_search_will_say(shared: Config, tmp_path: Path) -> None:
    host = TrainerActor(shared.model_dump(), Inputs(), Folder(str(tmp_path), setting="--out"))
    assert host.remarks()[1].startswith("validation images are among the training images")
    assert "val/linear_top1" not in host.ready()  # no search can be told to optimise it


def test_reports_and_cards_of_a_search_repeat_it(tmp_path: Path) -> None:
    folder = fake_search(tmp_path / "search")
    assert read_search(folder).remarks == []  # as of a search before there were any
    path = folder / "search.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"remarks": ["images [x] are \x1b[1mshared"]}))
    search = read_search(folder)
    found = [f for f in findings(search, None) if "data" in f.title]
    assert [(f.kind, f.text) for f in found] == [(CAUTION, "images [x] are \\x1b[1mshared")]


def test_remarks_cannot_write_a_card(small: Config, tmp_path: Path) -> None:
    shutil.copytree(_demo(), tmp_path / "student")
    result = build_result(small.model_dump(mode="json"), {"val/miou": 0.5}, 1.0, ["![x](y) <b> | `a`"])
    assert "- \\!\\[x\\](y) \\<b\\> \\| \\`a\\`" in card(result, tmp_path / "student")


def _demo() -> Path:
    import singer_ray

    return next(Path(singer_ray.__file__).parent.rglob("config.json")).parent


def test_probes_of_other_images_are_compared_with_all_training_images(small: Config) -> None:
    probes = {"train": Scenes("test", 40, 0), "val": Scenes("train", 20, 0)}
    context = TrainContext(small, probe_data=probes)
    assert context.remarks[0].startswith("all 20 validation images are training images too")
