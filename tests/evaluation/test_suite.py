"""What a score holds, and what it leaves out."""

from __future__ import annotations

import pytest
import torch

from singer_ray.config import Config
from singer_ray.data.scenes import Scenes
from singer_ray.data.source import Sample, Source
from singer_ray.evaluation.suite import ProbeSuite, Reader
from singer_ray.training.context import TrainContext
from singer_ray.vision.tapped import TappedViT


class Only:
    """A source with some of its annotations hidden."""

    def __init__(self, source: Source, *fields: str) -> None:
        self.source, self.fields = source, frozenset(fields)
        self.classes, self.mask_classes = source.classes, source.mask_classes

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        sample = self.source[index]
        return {k: v for k, v in sample.items() if k == "image" or k in self.fields}  # type: ignore[return-value]


@pytest.fixture
def context(small: Config) -> TrainContext:
    return TrainContext(small)


@pytest.fixture
def reader(context: TrainContext) -> Reader:
    return Reader(context.last_teacher, context.normalize, context.last_teacher.grid(32))


def suite(context: TrainContext, **sources: Source) -> ProbeSuite:
    return ProbeSuite(sources, context.evaluation_view, context.config.evaluation, torch.device("cpu"))


@pytest.mark.slow
def test_everything_is_scored_where_everything_is_known(context: TrainContext, reader: Reader) -> None:
    scores = context.suite.score(reader, ["val", "test"], after_norm=True)
    names = {"linear_top1", "knn_top1", "miou", "depth_rmse"}
    assert set(scores) == {
        f"{split}/{infix}{n}" for split in ("val", "test") for infix in ("", "after_norm/") for n in names
    }
    assert scores["val/linear_top1"] > 0.5  # the teacher knows the shapes
    assert scores["val/miou"] > 0.3
    assert context.suite.metric_names()[0] == "val/miou"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (("label",), {"val/linear_top1", "val/knn_top1"}),
        (("mask",), {"val/miou"}),
        (("depth",), {"val/depth_rmse"}),
        ((), set()),
    ],
)
def test_unknown_annotations_are_absent_not_zero(
    context: TrainContext, reader: Reader, fields: tuple[str, ...], expected: set[str]
) -> None:
    sources = {name: Only(Scenes(name, 40, 0), *fields) for name in ("train", "val")}
    found = suite(context, **sources)
    assert set(found.score(reader, ["val", "test"])) == expected
    assert set(found.metric_names()) == expected


def test_without_validation_images_there_is_nothing_to_select_by(context: TrainContext, reader: Reader) -> None:
    found = suite(context, train=Scenes("train", 40, 0))
    assert found.score(reader, ["val", "test"]) == {}
    assert found.metric_names() == []


def test_unlabelled_training_images_give_no_scores(context: TrainContext, reader: Reader) -> None:
    found = suite(context, train=Only(Scenes("train", 40, 0)), val=Scenes("val", 40, 0))
    assert found.score(reader, ["val"]) == {}


@pytest.mark.slow
def test_scores_repeat_to_the_last_bit(context: TrainContext, reader: Reader) -> None:
    assert context.suite.score(reader, ["val"]) == context.suite.score(reader, ["val"])


def test_miou_is_over_the_whole_set(context: TrainContext, reader: Reader) -> None:
    # A network with constant features can only answer with the commonest class: its IoU is that class's share.
    class Blank(TappedViT):
        def forward(self, images: torch.Tensor) -> object:  # type: ignore[override]
            features = super().forward(images)
            features.tokens = {k: torch.zeros_like(v) for k, v in features.tokens.items()}
            return features

    blank = Reader(Blank(reader.network.model, reader.network.layers), reader.normalize, reader.grid)
    score = context.suite.score(blank, ["val"])["val/miou"]
    known = context.suite.annotations("val", reader.grid).patch_classes
    assert known is not None
    present = len(known.unique())
    assert score == pytest.approx((known == 0).float().mean().item() / present, rel=1e-3)
