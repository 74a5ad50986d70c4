"""Networks evaluated side by side, on a few scenes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch

from singer_ray.config import Config, load_preset
from singer_ray.data.scenes import Scenes
from singer_ray.data.source import Sample, Source
from singer_ray.data.views import EvaluationView
from singer_ray.errors import UserError
from singer_ray.evaluation.frozen import Evaluated, FrozenEvaluation, check_sources
from singer_ray.evaluation.protocol import FIT
from singer_ray.evaluation.suite import ProbeSuite, Reader
from singer_ray.vision.models import create_student
from singer_ray.vision.networks import Network, network_of, open_network
from tests.conftest import SMALL

SETTINGS: dict[str, Any] = {**SMALL, "evaluation.official.epochs": 2}
PROBES = {"linear_top1", "knn_top1", "miou", "depth_rmse", "depth_delta1"}
ALWAYS = {"max_median_norm", "artifact_share"}


def config(**settings: Any) -> Config:
    return load_preset("demo").override({**SETTINGS, **{f"evaluation.{k}": v for k, v in settings.items()}})


class Few:
    """Scenes without some annotations, or without some classes."""

    def __init__(self, split: str, count: int, fields: Sequence[str] = ("label", "mask", "depth"), kinds: int = 5):
        scenes = Scenes(split, count, 0)
        self.samples = [s for s in (scenes[i] for i in range(count)) if s.get("label", 0) < kinds]
        self.fields, self.classes, self.mask_classes = frozenset(fields), scenes.classes, scenes.mask_classes

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        kept = {"image", *self.fields}
        return {k: v for k, v in self.samples[index].items() if k in kept}  # type: ignore[return-value]


def sources(**splits: Source) -> dict[str, Source]:
    return splits or {"train": Scenes("train", 64, 0), "val": Scenes("val", 48, 0), "test": Scenes("test", 48, 0)}


@cache
def opened(name: str) -> Network:
    return open_network(name)


def evaluate(
    network: Network,
    read: dict[str, Source],
    *,
    teacher: Network | None = None,
    official: dict[str, Any] | None = None,
    **settings: Any,
) -> Evaluated:
    splits = check_sources(read, "data")
    heads = {f"official.{name}": value for name, value in (official or {}).items()}
    chosen = config(**heads, **settings).evaluation
    return FrozenEvaluation(read, splits, chosen, torch.device("cpu"), teacher=teacher).run(network)


@pytest.fixture(scope="module")
def demo() -> Evaluated:
    torch.set_num_threads(1)  # before the fixture that does so for every test
    return evaluate(opened("demo"), sources(), teacher=opened("demo"), l2_grid=())


def test_every_metric_is_named_by_split_and_by_side_of_the_norm(demo: Evaluated) -> None:
    expected = {f"{s}/{infix}{n}" for s in ("val", "test") for infix in ("", "after_norm/") for n in PROBES | ALWAYS}
    assert set(demo.metrics) == expected | {"val/gram_cosine", "val/after_norm/gram_cosine"}
    assert demo.notes == []


def test_a_network_is_like_itself_and_less_like_another(demo: Evaluated) -> None:
    assert demo.metrics["val/gram_cosine"] == pytest.approx(1.0, abs=1e-5)
    other = evaluate(opened("demo-clean"), sources(), teacher=opened("demo"), l2_grid=())
    assert 0.5 < other.metrics["val/gram_cosine"] < 0.99


def test_the_likeness_is_over_all_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("singer_ray.evaluation.frozen._GRAM_BATCH", 7)
    read = sources(train=Few("train", 20, ("label",)), val=Few("val", 20, ("label",)))
    found = evaluate(opened("demo"), read, teacher=opened("demo"), l2_grid=())
    assert found.metrics["val/gram_cosine"] == pytest.approx(1.0, abs=1e-5)


def test_artifacts_are_seen_where_they_were_planted(demo: Evaluated) -> None:
    clean = evaluate(opened("demo-clean"), sources(), l2_grid=())
    assert demo.metrics["val/max_median_norm"] > 6 > 2 > clean.metrics["val/max_median_norm"]
    assert demo.metrics["val/artifact_share"] > 0.01 > clean.metrics["val/artifact_share"]
    assert "val/gram_cosine" not in clean.metrics


def test_the_share_of_artifacts_follows_its_setting(demo: Evaluated) -> None:
    strict = evaluate(opened("demo"), sources(), l2_grid=(), artifact_ratio=1000.0)
    assert strict.metrics["val/artifact_share"] == 0.0 < demo.metrics["val/artifact_share"]


def test_another_grid_has_no_gram_cosine_and_says_so() -> None:
    torch.manual_seed(0)
    model = create_student("vit_tiny_patch16_224", 32, embed_dim=48, depth=2, num_heads=3, patch_size=8)
    student = network_of("fresh", model, 32, 1.0)
    found = evaluate(student, sources(), teacher=opened("demo"), l2_grid=())
    assert "val/gram_cosine" not in found.metrics
    assert found.notes == ["no gram_cosine: its grid of patches is 4 x 4, that of demo 8 x 8"]
    assert found.metrics["val/miou"] != found.metrics["val/after_norm/miou"]  # this one has a final norm


@pytest.mark.slow
def test_the_regulariser_is_the_best_on_validation() -> None:
    read, network, device = sources(), opened("demo"), torch.device("cpu")
    suite = ProbeSuite(read, EvaluationView(32, 1.0), config().evaluation, device)
    reader = Reader(network.tapped, network.normalize, network.grid)
    features = {split: suite.features(reader, split)["before_norm"] for split in (FIT, "val")}
    grid = (1e-4, 0.1, 30.0)
    alone = {l2: suite.probe(features, ["val"], network.grid, l2_grid=(l2,)).scores["val"] for l2 in grid}
    chosen = suite.probe(features, ["val"], network.grid, l2_grid=grid)
    for name, better in (("linear_top1", max), ("miou", max), ("depth_rmse", min)):
        values = {l2: scores[name] for l2, scores in alone.items()}
        assert len(set(values.values())) > 1, name
        assert chosen.scores["val"][name] != values[grid[-1]], name
        assert chosen.scores["val"][name] == better(values.values())
        assert values[chosen.l2[name]] == better(values.values())


def test_without_validation_images_the_regulariser_is_the_configured_one() -> None:
    found = evaluate(opened("demo"), sources(train=Few("train", 40, ("label",)), test=Few("test", 40, ("label",))))
    assert set(found.l2.values()) == {1e-4}
    assert found.notes == ["no validation images: every regulariser is evaluation.l2 0.0001"]
    assert "test/linear_top1" in found.metrics


def test_classes_that_do_not_occur_are_named() -> None:
    read = sources(train=Few("train", 60, ("label",), kinds=3), val=Few("val", 60, ("label",), kinds=4))
    found = evaluate(opened("demo"), read, l2_grid=())
    assert found.notes == [
        "2 of 5 class names do not occur in the fit images (never predicted; raise evaluation.fit_images): "
        "'ring', 'cross'",
        "1 of 5 class names do not occur in the val images (nothing there can be right): 'cross'",
    ]


def test_sources_without_common_annotations_are_refused() -> None:
    with pytest.raises(UserError, match=r"data has no annotation .* \(train: label; val: depth\)"):
        check_sources({"train": Few("train", 8, ("label",)), "val": Few("val", 8, ("depth",))}, "data")
    with pytest.raises(UserError, match=r"^evaluation.data has no validation or test images"):
        check_sources({"train": Few("train", 8)}, "evaluation.data")


@pytest.mark.long
def test_the_official_protocol_replaces_the_probes() -> None:
    found = evaluate(opened("demo"), sources(), protocol="official")
    names = {n.split("/")[2] for n in found.metrics if "/official/" in n}
    assert names == {"top1", "miou", "depth_rmse", "depth_rmse_per_image", "depth_delta1", "depth_rel"}
    assert {n.rpartition("/")[2] for n in found.metrics if "/official/" in n} == {"last", "best"}
    assert not {n for n in found.metrics if n.endswith(tuple(PROBES))}
    assert "val/max_median_norm" in found.metrics


def test_a_head_that_diverges_is_noted_and_not_scored() -> None:
    read = sources(train=Few("train", 30, ("label",)), val=Few("val", 30, ("label",)))
    found = evaluate(opened("demo"), read, protocol="official", official={"lr": 1e38})
    assert found.notes[0].startswith("no official classification scores: the loss of the head is not finite")
    assert not {n for n in found.metrics if "/official/" in n}


def test_a_network_without_class_token_cannot_be_pooled_by_it() -> None:
    model = create_student(
        "vit_tiny_patch16_224",
        32,
        embed_dim=48,
        depth=1,
        num_heads=3,
        patch_size=8,
        global_pool="avg",
        class_token=False,
    )
    bare = network_of("bare", model, 32)
    for settings, setting in (
        ({"pooling": "class"}, "evaluation.pooling mean"),
        ({"protocol": "official"}, "evaluation.official.mode avg"),
    ):
        evaluation = FrozenEvaluation(sources(), ["val"], config(**settings).evaluation, torch.device("cpu"))
        with pytest.raises(UserError, match=f"network bare has no class token to read. Use --{setting}"):
            evaluation.check(bare)
        evaluation.check(opened("demo"))
    read = sources(train=Few("train", 30), val=Few("val", 30))
    found = evaluate(bare, read, protocol="official", official={"mode": "avg"})
    assert "val/official/depth_rmse/last" in found.metrics


def test_features_that_are_not_finite_are_refused() -> None:
    model = create_student("vit_tiny_patch16_224", 32, embed_dim=48, depth=1, num_heads=3, patch_size=8)
    next(model.parameters()).data.fill_(float("nan"))
    with pytest.raises(UserError, match="network broken gives features that are not finite"):
        evaluate(network_of("broken", model, 32), sources(train=Few("train", 8), val=Few("val", 8)))
