"""Every probe keeps its contract, and another one takes no more than its page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

import singer_ray
from singer_ray import metrics
from singer_ray.config import Config
from singer_ray.evaluation import protocol
from singer_ray.evaluation.features import Annotations, ProbeFeatures
from singer_ray.evaluation.protocol import PROBES, Probe, Protocol
from singer_ray.evaluation.suite import ProbeSuite, Reader
from singer_ray.metrics import MAX, PROBED
from singer_ray.training.context import TrainContext

IMAGES, SIDE, DIM, CLASSES = 24, 2, 6, 3
PAGE = Path(singer_ray.__file__).parent / "evaluation" / "README.md"


def features(seed: int) -> tuple[ProbeFeatures, Annotations]:
    """Features that hold their labels, patch classes and depth."""
    torch.manual_seed(seed)
    patches = torch.randn(IMAGES, SIDE * SIDE, DIM)
    labels = torch.arange(IMAGES) % CLASSES
    patches += 6 * functional.one_hot(labels, DIM)[:, None]
    depth = patches[..., 1] + 9
    return ProbeFeatures(patches.mean(dim=1), patches), Annotations(labels, labels[:, None].expand(-1, 4), depth)


def run(fit: Annotations | None = None, l2_grid: tuple[float, ...] = ()) -> protocol.Probed:
    seen, known = {}, {}
    for seed, split in enumerate(("train", "val", "test")):
        seen[split], known[split] = features(seed)
    known["train"] = fit or known["train"]
    return Protocol(CLASSES, CLASSES, Config().evaluation, l2_grid).run(seen, known, ["val", "test"])


def made(kind: type[Probe]) -> Probe:
    return kind(CLASSES, CLASSES, Config().evaluation)


def test_the_scores_of_the_probes_are_those_of_the_table() -> None:
    assert tuple(metric for kind in PROBES for metric in kind.metrics) == PROBED


@pytest.mark.parametrize("kind", PROBES)
def test_a_probe_learns_what_the_features_hold(kind: type[Probe]) -> None:
    seen, known = features(0)
    probe = made(kind)
    target = probe.target(known)
    assert target is not None
    assert probe.why_not_fitted(target) is None
    assert probe.why_not_scored(target, "val") is None
    guess = probe.fit(seen, target, 1e-4)(seen)
    assert guess.shape[0] == IMAGES
    scores = probe.score(guess, target)
    assert list(scores) == [metric.name for metric in probe.metrics]
    for metric in probe.metrics:
        assert scores[metric.name] >= 0.9 if metric.better == MAX else scores[metric.name] < 0.1


@pytest.mark.parametrize("kind", PROBES)
def test_a_probe_is_silent_where_its_annotation_is_unknown(kind: type[Probe]) -> None:
    assert made(kind).target(Annotations(None, None, None)) is None


def test_scores_are_listed_in_the_order_of_the_table_in_every_split() -> None:
    probed = run()
    assert list(probed.scores) == ["val", "test"]
    for scores in probed.scores.values():
        assert list(scores) == [metric.name for metric in PROBED]
    assert list(probed.l2) == ["linear_top1", "miou", "depth_rmse"]


def test_the_regulariser_is_the_best_on_validation_whichever_way_is_better() -> None:
    l2 = run(l2_grid=(1e-3, 10.0)).l2
    assert l2["linear_top1"] == 10.0  # both are right everywhere: the strongest
    assert l2["depth_rmse"] == 1e-3  # the smaller error


def test_what_teaches_nothing_is_named_under_every_score_that_needs_it() -> None:
    one = torch.zeros(IMAGES, dtype=torch.long)
    probed = run(Annotations(one, one[:, None].expand(-1, 4), None))
    assert set(probed.missing) == {"linear_top1", "knn_top1", "miou"}
    assert probed.scores == {}


def test_another_probe_takes_what_the_page_says(small: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    line, sketch = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    names: dict[str, Any] = {**vars(metrics), **vars(protocol)}
    exec(line + sketch, names)
    monkeypatch.setattr(metrics, "PROBED", (*PROBED, names["MEANS_TOP2"]))
    monkeypatch.setattr(protocol, "PROBES", (*PROBES, names["ClassMeans"]))
    context = TrainContext(small)
    suite: ProbeSuite = context.suite
    reader = Reader(context.last_teacher, context.normalize, context.last_teacher.grid(32))
    scores = suite.score(reader, ["val"])
    assert scores["val/means_top2"] > 2 / 5
    assert suite.metric_names() == ["val/miou", "val/linear_top1", "val/knn_top1", "val/means_top2", "val/depth_rmse"]
    assert metrics.direction("val/means_top2") == MAX
