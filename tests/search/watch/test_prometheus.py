"""Figures of running trials reach the metrics port of their node, under the names that the dashboard asks for."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from singer_ray.config import Config
from singer_ray.nodes import ray_cluster
from singer_ray.search.driver.tune_adapters import Failure, StudyScheduler
from singer_ray.search.study.schema import REMARK
from singer_ray.search.watch import prometheus
from singer_ray.search.watch.prometheus import TrialGauges, series
from singer_ray.tracking.figures import ascii_only
from tests.search.studies import new_ask_tell

pytestmark = pytest.mark.ray

DASHBOARD = Path(__file__).parents[3] / "clusters" / "grafana.json"
RESULT = {
    "epoch": 3,
    "val/miou": 0.5,
    "images_per_second": 812.5,
    "teacher/max_median_norm/3": 9.25,
    "train/loss": math.nan,
    "done": True,
    "fault": None,
    "test/miou": math.inf,
}
PARAMETERS = {"method.rank": 16, "train.lr": 0.004, "method.refiner": 'singer"'}


class Sample(dict[str, str]):
    """Labels of one line of Prometheus text; its value is `value`."""

    value: float


def scrape(address: str) -> dict[str, list[Sample]]:
    """Our metrics at a node's port, by name."""
    found: dict[str, list[Sample]] = {}
    for line in requests.get(address, timeout=10).text.splitlines():
        match = re.fullmatch(r"(ray_singer_ray_\w+)\{(.*)\} (\S+)", line)
        if match:
            labels = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2])
            sample = Sample((name, text.replace('\\"', '"')) for name, text in labels)
            sample.value = float(match[3])
            found.setdefault(match[1], []).append(sample)
    return found


@pytest.fixture(scope="module")
def metrics_port() -> Iterator[str]:
    import ray

    # Values are exported every second and dropped when two seconds old, instead of every 10 and after 20.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_metrics_report_interval_ms", "1000")
        with ray_cluster.connected():
            node = ray.nodes()[0]
            yield f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"


@pytest.mark.long
def test_a_trials_figures_reach_the_metrics_port_and_stay_until_it_ends(metrics_port: str) -> None:
    import ray

    class Trial:
        def report(self) -> None:
            prometheus.EVERY = 0.5
            self.gauges = TrialGauges("007", PARAMETERS, "möbel 日")  # Ray takes ASCII alone
            self.gauges.set({prometheus.QUEUED: 1})
            self.gauges.set({prometheus.QUEUED: 0})
            self.gauges.set(RESULT)

        def end(self) -> None:
            self.gauges.close()

    trial: Any = ray.remote(num_cpus=0)(Trial).remote()
    ray.get(trial.report.remote())
    found = _wait_for(metrics_port, present=True)
    assert {name: [sample.value for sample in samples] for name, samples in found.items()} == {
        "ray_singer_ray_epoch": [3],
        "ray_singer_ray_val_miou": [0.5],
        "ray_singer_ray_images_per_second": [812.5],
        "ray_singer_ray_teacher_max_median_norm": [9.25],
        "ray_singer_ray_queued": [0],
    }
    (sample,) = found["ray_singer_ray_teacher_max_median_norm"]
    own = {
        "experiment": "m%C3%B6bel %E6%97%A5",
        "trial": "007",
        "parameters": 'rank=16 lr=0.004 refiner=singer"',
        "layer": "3",
    }
    assert own.items() <= sample.items()
    time.sleep(5)  # a long epoch: nothing new is set
    assert scrape(metrics_port)["ray_singer_ray_val_miou"][0].value == 0.5
    ray.get(trial.end.remote())
    assert not _wait_for(metrics_port, present=False)


def _wait_for(address: str, *, present: bool) -> dict[str, list[Sample]]:
    begin = time.monotonic()
    while bool(found := scrape(address)) != present and time.monotonic() - begin < 60:
        time.sleep(0.5)
    return found


def test_names_are_valid_for_prometheus_and_layers_become_labels() -> None:
    assert series("val/after_norm/linear_top1") == ("singer_ray_val_after_norm_linear_top1", {})
    assert series("refined/normal_change/11") == ("singer_ray_refined_normal_change", {"layer": "11"})
    assert series("epoch") == ("singer_ray_epoch", {})


def test_texts_become_ascii_and_stay_different() -> None:
    texts = ["möbel", "mobel", "日", "月", "a b=c", "caf\udce9", "\n"]
    found = [ascii_only(text) for text in texts]
    assert found[4] == "a b=c"
    assert all(text.isascii() and text.isprintable() for text in found)
    assert len(set(found)) == len(texts)


def test_a_gauge_that_fails_is_named_once_and_ends_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def refuse(name: str, *given: Any) -> None:
        tried.append(name)
        raise ValueError("no room for metrics")

    monkeypatch.setattr(prometheus, "Gauge", refuse)
    monkeypatch.setattr(prometheus, "EVERY", 0.1)
    found = TrialGauges("007", PARAMETERS, "my search")
    for _ in range(3):
        found.set(RESULT | {"huge": 10**400})
        assert found.setter is not None
        found.setter.join(10)
    found.close()
    assert tried == []  # what cannot be read at all is no reason to try further
    assert found.remark is not None
    assert found.remark.startswith("the metrics for Prometheus failed and will be left out from here on")
    other = TrialGauges("008", PARAMETERS, "my search")
    for _ in range(3):
        other.set(RESULT)
        assert other.setter is not None
        other.setter.join(10)
    assert len(tried) == 1
    assert other.remark is not None
    assert "no room for metrics" in other.remark


def test_what_a_trial_remarks_is_said_once_a_search() -> None:
    remarked: list[str] = []
    ask_tell = new_ask_tell(epochs=2)
    scheduler = StudyScheduler(ask_tell, Failure(), remarked.append)
    ask_tell.ask("t0")
    tune: Any = None
    trial: Any = SimpleNamespace(config={"number": 0})
    scheduler.on_trial_result(tune, trial, {"epoch": 1, "val/miou": 0.5, REMARK: "the metrics are left out"})
    assert remarked == ["the metrics are left out"]


def test_gauges_need_no_torch() -> None:
    check = "import sys, singer_ray.search.watch.prometheus; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


@pytest.fixture(scope="module")
def exported() -> set[str]:
    """Names of all metrics that a trial of the demonstration exports."""
    from singer_ray.config import load_preset
    from singer_ray.training.launch import Inputs
    from singer_ray.training.loop import epochs
    from singer_ray.training.trainer import StudentTrainer
    from tests.conftest import SMALL

    config: Config = load_preset("demo").override(SMALL)
    (*_, last) = epochs(StudentTrainer.begin(Inputs().context(config), config))
    return {f"ray_{series(name)[0]}" for name in (*last, prometheus.QUEUED)}


def test_every_panel_of_the_dashboard_asks_for_metrics_that_exist(exported: set[str]) -> None:
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    known = exported | {f"ray_{name}" for name in METRICS_GAUGES}
    choices = [option["value"] for option in variables["metric"]["options"]]
    assert set(choices) <= exported
    assert re.findall(r"ray_\w+", variables["experiment"]["definition"]) == ["ray_singer_ray_epoch"]
    asked: set[str] = set()
    for panel in board["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            names = re.findall(r"\bray_\w+", target["expr"])
            assert names or "$metric" in target["expr"], panel["title"]
            assert set(names) <= known, panel["title"]
            labels = {"layer", "ip", "GpuIndex", "trial", "parameters"}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels
            asked |= {*names, *(choices if "$metric" in target["expr"] else ())}
            for variable in re.findall(r"\$\{?([a-z]\w*)", target["expr"]):
                assert variable in variables, panel["title"]
    assert {"ray_node_gpus_utilization", "ray_singer_ray_train_loss", "ray_singer_ray_val_miou"} <= asked
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
