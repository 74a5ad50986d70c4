"""What follows from which settings were given: sources and contradictions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from singer_ray.arguments import resolve
from singer_ray.config import Config, load_preset
from singer_ray.config.given import differences, settle
from singer_ray.errors import UserError

TEACHER = {"teacher.name": "vit_small_patch16_224"}


@pytest.mark.parametrize("folder", ["train", "val", "test", "train_masks", "val_masks", "test_masks"])
def test_a_folder_means_images_from_folders(folder: str) -> None:
    given = {f"data.{folder}": "images", **TEACHER}
    assert settle(Config().override(given), given).data.source == "imagefolder"
    probes = {f"evaluation.data.{folder}": "images"}
    assert settle(Config().override(probes), probes).evaluation.data.source == "imagefolder"


def test_without_a_folder_nothing_changes() -> None:
    for given in ({}, {"data.train": None}, {"data.scenes.seed": 3}, {"data.source": "scenes"}):
        config = Config().override(given)
        assert settle(config, given) == config


def test_a_folder_of_the_preset_that_nobody_gave_changes_nothing() -> None:
    config = Config().override({"data.train": "images"})  # as an older config.yaml may have it
    assert settle(config, {"seed"}) == config


def test_folders_and_another_source_contradict_each_other() -> None:
    for source in ("scenes", "own"):
        given = {"data.train": "images", "data.source": source}
        with pytest.raises(UserError, match=rf"--data.source {source} and --data.train images contradict"):
            settle(Config().override(given), given)
    given = {"evaluation.data.val": "images", "evaluation.data.source": "same"}
    with pytest.raises(UserError, match=r"--evaluation.data.source same and --evaluation.data.val images contradict"):
        settle(Config().override(given), given)
    scenes = {"data.train": "images", "data.scenes.seed": 4, **TEACHER}
    with pytest.raises(UserError, match=r"--data.scenes.seed is of the built-in scenes"):
        settle(Config().override(scenes), scenes)


@pytest.mark.parametrize("source", ["imagefolder"])
def test_the_teacher_of_the_scenes_is_shown_other_images_only_when_asked_to(source: str) -> None:
    folders = {"data.train": "images"}
    with pytest.raises(UserError, match="Use --preset imagenet-vitl-vitt"):
        settle(load_preset("demo").override(folders), folders)
    assert settle(load_preset("demo").override(folders), folders, distils=False).data.source == source
    for more in ({"data.source": source}, {"teacher.name": "demo"}):
        given: dict[str, object] = {**folders, **more}
        assert settle(load_preset("demo").override(given), given).data.source == source


def test_a_preset_that_names_folders_reads_them(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("data: {train: images}\nevaluation: {data: {val: others}}")
    found = load_preset(str(own))
    assert (found.data.source, found.evaluation.data.source) == ("imagefolder", "imagefolder")
    own.write_text("data: {train: images, source: scenes}")
    assert load_preset(str(own)).data.source == "scenes"
    own.write_text(Config().to_yaml())
    assert load_preset(str(own)) == Config()
    own.write_text("data: [train]")
    with pytest.raises(UserError, match="data is"):
        load_preset(str(own))


def test_python_infers_and_refuses_alike() -> None:
    teacher = "vit_small_patch16_224"
    assert resolve(teacher, None, None, "demo", {"data.train": "x"})[0].data.source == "imagefolder"
    with pytest.raises(UserError, match="contradict"):
        resolve(teacher, None, None, "demo", {"data.train": "x", "data.source": "scenes"})
    with pytest.raises(UserError, match="contradict"):
        resolve(teacher, {"train": [torch.zeros(3, 4, 4, dtype=torch.uint8)]}, None, "demo", {"data.train": "x"})
    with pytest.raises(UserError, match="knows the built-in scenes only"):
        resolve(None, None, None, "demo", {"data.train": "x"})


def test_differences_are_told_with_what_the_preset_has() -> None:
    start = load_preset("demo")
    assert differences(start, start) == []
    assert differences(start.override({"method.rank": 4}), start) == ["method.rank: 4   (preset: 16)"]
