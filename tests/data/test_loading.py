"""Order of batches and views: functions of the seed and the step, whoever asks and whenever."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from singer_ray.data.loader import Batch, evaluation_batches, training_batches
from singer_ray.data.scenes import Scenes
from singer_ray.data.source import Sample, shuffled_subset
from singer_ray.data.views import EvaluationView, TrainingView, derive

SCENES = Scenes("train", 50, 0)
CROPS = TrainingView(32, 1.0, "crop_flip", (0.4, 1.0), seed=5)


def first(count: int, **settings: int) -> list[torch.Tensor]:
    batches = training_batches(SCENES, CROPS, **{"batch_size": 16, "seed": 0, **settings})  # type: ignore[arg-type]
    return [batch["image"] for batch in islice(batches, count)]


def test_a_resumed_run_sees_the_same_batches() -> None:
    whole, rest = first(8), first(3, first_step=5)
    assert all(torch.equal(a, b) for a, b in zip(whole[5:], rest))


def test_workers_share_each_batch_between_them() -> None:
    whole = first(5)
    parts = [first(5, rank=rank, world=2) for rank in range(2)]
    assert all(torch.equal(w, torch.cat([a, b])) for w, a, b in zip(whole, *parts))


@pytest.mark.slow
def test_loader_processes_change_nothing() -> None:
    assert all(torch.equal(a, b) for a, b in zip(first(4), first(4, workers=1)))


def test_global_random_state_is_neither_read_nor_changed() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = first(2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(one, first(2)))


def test_each_pass_holds_every_image_once_and_shows_other_views() -> None:
    class Numbered:
        fields, classes, mask_classes = frozenset[str](), (), ()

        def __len__(self) -> int:
            return 12

        def __getitem__(self, index: int) -> Sample:
            return {"image": torch.full((3, 32, 32), index, dtype=torch.uint8)}

    plain = TrainingView(32, 1.0, "none", (1.0, 1.0), seed=0)
    batches = training_batches(Numbered(), plain, batch_size=4, seed=3)
    drawn = torch.cat([b["image"][:, 0, 0, 0] for b in islice(batches, 6)]).tolist()
    assert sorted(drawn[:12]) == sorted(drawn[12:]) == list(range(12))
    assert drawn[:12] != drawn[12:]
    image = SCENES[0]["image"]
    assert not torch.equal(CROPS(image, 0, 0), CROPS(image, 0, 1))
    assert torch.equal(CROPS(image, 0, 1), CROPS(image, 0, 1))


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="16 cannot be divided among 3"):
        first(1, world=3)


def test_evaluation_reads_all_in_order_with_annotations() -> None:
    batches: list[Batch] = list(evaluation_batches(SCENES, EvaluationView(32, 1.0), batch_size=16))
    assert [len(b["image"]) for b in batches] == [16, 16, 16, 2]
    assert torch.cat([b["label"] for b in batches]).tolist() == [SCENES[i]["label"] for i in range(50)]


def test_masks_and_depth_stay_aligned_with_the_image() -> None:
    image = torch.zeros(3, 80, 120, dtype=torch.uint8)
    image[:, 20:60, 40:80] = 255
    mask = (image[0] > 0).to(torch.uint8) * 3
    seen = EvaluationView(32, 0.8)({"image": image, "mask": mask, "depth": mask.float()})
    assert seen["image"].shape == (3, 32, 32)
    assert seen["mask"].shape == seen["depth"].shape == (32, 32)
    assert set(seen["mask"].unique().tolist()) == {0, 3}  # no class that resizing made up
    bright = seen["image"][0] > 127
    assert (bright == (seen["mask"] == 3)).float().mean() > 0.97
    assert (bright == (seen["depth"] > 1.5)).float().mean() > 0.97


def test_subset_is_spread_over_the_source() -> None:
    subset = shuffled_subset(SCENES, 10)
    places = [next(i for i in range(50) if torch.equal(SCENES[i]["image"], subset[j]["image"])) for j in range(10)]
    assert places == sorted(places)
    assert max(places) > 25
    assert shuffled_subset(SCENES, 0) is SCENES
    assert shuffled_subset(SCENES, 99) is SCENES


def test_near_numbers_give_unrelated_seeds() -> None:
    seeds = [derive(a, b) for a in range(20) for b in range(20)]
    assert len(set(seeds)) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)
