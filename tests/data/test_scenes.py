"""The procedural scenes."""

from __future__ import annotations

import numpy as np
import torch

from singer_ray.data.scenes import KINDS, Scenes, render


def test_a_scene_depends_on_seed_split_and_index_alone() -> None:
    together = render("val", 3, 0, 20)
    alone = render("val", 3, 7, 1)
    assert all(np.array_equal(together[name][7], alone[name][0]) for name in together)
    assert not np.array_equal(render("test", 3, 7, 1)["image"], alone["image"])
    assert not np.array_equal(render("val", 4, 7, 1)["image"], alone["image"])


def test_samples_cross_chunks() -> None:
    scenes = Scenes("train", 600, 0)
    assert torch.equal(scenes[599]["image"], torch.from_numpy(render("train", 0, 599, 1)["image"][0]))


def test_the_label_is_the_kind_of_the_nearest_shape() -> None:
    scenes = Scenes("train", 200, 0)
    for i in range(200):
        sample = scenes[i]
        nearest = sample["mask"].flatten()[sample["depth"].argmin()]
        assert int(nearest) == sample["label"] + 1


def test_every_kind_and_every_count_of_shapes_occurs() -> None:
    scenes = Scenes("train", 300, 0)
    assert {scenes[i]["label"] for i in range(300)} == set(range(len(KINDS)))
    distances = [len(scenes[i]["depth"][scenes[i]["mask"] > 0].unique()) for i in range(300)]
    assert set(distances) == {1, 2, 3}


def test_ground_recedes_and_shapes_stand_before_it() -> None:
    sample = Scenes("train", 1, 0)[0]
    ground = sample["mask"] == 0
    assert sample["depth"][ground].min() >= 0.6
    assert sample["depth"][~ground].max() <= 0.6
    rows = sample["depth"].where(ground, torch.nan).nanmean(dim=1)
    assert (rows.diff() < 0).all()
