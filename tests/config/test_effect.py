"""Which settings have an effect: the table is whole, and every one without is told."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from singer_ray import train, tune
from singer_ray.config import Config, MethodConfig, field_names
from singer_ray.config.effect import EFFECTS, UNREAD, deciding, has_effect, remarks
from singer_ray.options.command import SHORTCUTS

ELSEWHERE = {
    "data.source": "own",
    "evaluation.data.source": "scenes",
    "teacher.name": "own:Mine",
    "teacher.checkpoint": "x.pth",
    "method.refiner": "none",
    "search.scheduler": "none",
    "search.sampler": "random",
    "method.loss.outlier": 0.0,
    "method.loss.info": 0.0,
}
"""Settings with which those that depend on others have no effect (the defaults do for the rest)."""
CONDITIONAL = [name for name, conditions in EFFECTS.items() if conditions]


def test_the_table_has_every_setting_and_no_other() -> None:
    assert set(EFFECTS) == set(field_names())


def test_what_decides_is_a_setting_too() -> None:
    assert {setting for name in EFFECTS for setting in deciding(name)} <= set(field_names())
    for beginnings in UNREAD.values():
        assert all(any(name.startswith(start) for name in field_names()) for start in beginnings)


@pytest.mark.parametrize("name", CONDITIONAL)
def test_each_setting_without_effect_is_told_in_one_line(name: str) -> None:
    same = {"evaluation.data.source": "same"} if name.startswith("evaluation.data.scenes.") else {}
    config = Config().override({**ELSEWHERE, **same})
    (line,) = remarks([name], [config], "")
    assert line.startswith(f"{name} has no effect: ")
    assert any(setting in line for setting in deciding(name))
    assert "Use it with " in line
    assert "\n" not in line


def test_a_setting_is_told_only_when_it_was_given() -> None:
    config = Config().override(ELSEWHERE)
    assert remarks([], [config], "train") == []
    assert remarks(["seed", "train.lr"], [config], "train") == []


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("method.clip.ratio", {"method.refiner": "clip"}),
        ("method.jacobian_probes", {"method.linearization": "jacobian"}),
        ("method.official_threshold", {"method.variant": "official"}),
        ("method.prefit.lr", {"method.linearization": "pca"}),
        ("method.loss.info", {"method.linearization": "pca"}),
        ("method.outlier_quantile", {"method.freeze": False}),
        ("method.detach_target", {"method.linearization": "pca", "method.freeze": False}),
        ("data.crop_scale", {"data.augment": "crop_flip"}),
        ("data.val", {"data.source": "imagefolder", "data.val": "x"}),
        ("data.train_masks", {"data.source": "imagefolder", "data.train": "x", "data.val_masks": "y"}),
        ("evaluation.data.val", {"evaluation.data.source": "imagefolder"}),
        ("teacher.pretrained", {}),
        ("search.plateau_gain", {"search.plateau_trials": 5}),
        ("search.startup_trials", {"search.sampler": "random", "search.scheduler": "median"}),
        ("export.kms_key", {"export.to": "s3://bucket", "export.encryption": "aws:kms"}),
        ("export.storage_class", {"train.storage": "s3://bucket"}),
    ],
)
def test_where_a_setting_has_its_effect_nothing_is_said(name: str, settings: dict[str, Any]) -> None:
    assert has_effect(name, Config().override(settings))


def test_every_refiner_and_variant_has_settings_of_its_own_or_none() -> None:
    for refiner in get_args(MethodConfig.model_fields["refiner"].annotation):
        config = Config().override({"method.refiner": refiner})
        own = [name for name in EFFECTS if name.startswith("method.") and has_effect(name, config)]
        assert ("method.rank" in own) == (refiner == "singer")
        assert ("method.vitkd.mask_ratio" in own) == (refiner == "vitkd")


def test_a_joint_variant_has_no_pre_fit() -> None:
    (line,) = remarks(["method.prefit.steps"], [Config().override({"method.variant": "paper"})], "train")
    assert "method.variant is 'paper'" in line


def test_what_a_command_does_not_read_is_told() -> None:
    assert remarks(["search.trials"], [Config()], "train") == [
        "search.trials has no effect: `train` does not read it. Leave it out."
    ]
    assert remarks(["method.rank"], [], "digits")
    assert remarks(["export.onnx"], [], "export") == []
    for command in ("train", "tune", "analyze", "teacher"):
        assert remarks(["evaluation.protocol"], [Config()], command)
    for door in (train, tune):  # the short names are for settings that are read
        assert not [n for n in door.COMMAND.shortcuts if SHORTCUTS[n].startswith(UNREAD[door.COMMAND.name])]


def test_neighbours_need_labels() -> None:
    assert remarks(["evaluation.knn.k"], [Config()], "train", {"mask"})
    assert not remarks(["evaluation.knn.k"], [Config()], "train", {"label"})
    assert not remarks(["evaluation.knn.k"], [Config()], "train", None)
