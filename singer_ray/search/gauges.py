"""Figures of running trials as metrics that Prometheus can scrape and clusters/grafana.json draws."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Gauge

from singer_ray.tracking.figures import describe as describe
from singer_ray.tracking.figures import figures

PREFIX = "singer_ray_"
"""Of our names; Ray puts its own `ray_` before that: val/miou is `ray_singer_ray_val_miou` to Prometheus."""
TAGS = ("experiment", "trial", "parameters")
LAYER = "layer"
EVERY = 5.0
"""Seconds between two repetitions of a value."""


class TrialGauges:
    """The latest figures of one trial, for as long as its process lives, and some 20 s longer.

    Every series carries the tags `experiment`, `trial` ("007") and `parameters` ("rank=16 lr=0.004"); figures of a
    layer, such as teacher/max_median_norm/3, carry the layer's number as the tag `layer`.
    """

    def __init__(self, trial: str, parameters: Mapping[str, Any], experiment: str) -> None:
        self.tags = {"experiment": experiment, "trial": trial, "parameters": describe(parameters)}
        self.gauges: dict[str, Gauge] = {}
        self.shown: dict[str, float] = {}
        self.closed = threading.Event()
        self.repeater: threading.Thread | None = None

    def set(self, result: Mapping[str, Any]) -> None:
        """Shows every figure of a result; what is not a finite number is left out."""
        self.shown = self.shown | figures(result)
        self._record()
        if self.repeater is None:
            self.repeater = threading.Thread(target=self._repeat, name="gauges", daemon=True)
            self.repeater.start()

    def close(self) -> None:
        """The trial ends: its figures are repeated no more."""
        self.closed.set()

    def _record(self) -> None:
        for name, value in self.shown.items():
            metric, tags = series(name)
            if metric not in self.gauges:
                self.gauges[metric] = Gauge(metric, f"{name}, of the trial's last epoch", (*TAGS, *tags))
            self.gauges[metric].set(value, self.tags | tags)

    def _repeat(self) -> None:
        # Ray drops a value that nobody set for some 20 s, and epochs may take longer than that.
        while not self.closed.wait(EVERY):
            self._record()


def series(name: str) -> tuple[str, dict[str, str]]:
    """A figure's name as a metric's, and its tags: teacher/max_median_norm/3 has its layer as one."""
    stem, _, last = name.rpartition("/")
    stem, tags = (stem, {LAYER: last}) if stem and last.isdigit() else (name, {})
    return PREFIX + re.sub(r"\W", "_", stem, flags=re.ASCII), tags
