"""Figures of running trials as metrics that Prometheus can scrape and clusters/grafana.json draws."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Gauge

from singer_ray.tracking.background import Guard
from singer_ray.tracking.figures import ascii_only, figures
from singer_ray.tracking.figures import describe as describe

PREFIX = "singer_ray_"
"""Of our names; Ray puts its own `ray_` before that: val/miou is `ray_singer_ray_val_miou` to Prometheus."""
TAGS = ("experiment", "trial", "parameters")
LAYER = "layer"
QUEUED = "queued"
"""The figure that is 1 while a trial waits for a host, and 0 from when one has taken it."""
EVERY = 5.0
"""Seconds between two repetitions of a value."""


class TrialGauges:
    """The latest figures of one trial, for as long as its process lives, and some 20 s longer.

    Every series carries the tags `experiment`, `trial` ("007") and `parameters` ("rank=16 lr=0.004"); figures of a
    layer, such as teacher/max_median_norm/3, carry the layer's number as the tag `layer`. They are set in a thread of
    their own: what fails there is in `remark`, and no figure is set from then on.
    """

    def __init__(self, trial: str, parameters: Mapping[str, Any], experiment: str) -> None:
        tags = {"experiment": experiment, "trial": trial, "parameters": describe(parameters)}
        self.tags = {name: ascii_only(text) for name, text in tags.items()}
        self.gauges: dict[str, Gauge] = {}
        self.shown: dict[str, float] = {}
        self.remark: str | None = None
        """Why no figure is set any more, in words."""
        self.closed, self.changed = False, threading.Event()
        self.guard = Guard("the metrics for Prometheus", self._remark)
        self.setter: threading.Thread | None = None

    def set(self, result: Mapping[str, Any]) -> None:
        """Shows every figure of a result; what is not a finite number is left out."""
        nothing: dict[str, float] = {}
        self.shown = self.shown | self.guard(lambda: figures(result), nothing)
        self.changed.set()
        if self.setter is None:
            self.setter = threading.Thread(target=self._repeat, name="gauges", daemon=True)
            self.setter.start()

    def close(self) -> None:
        """The trial ends: its figures are repeated no more."""
        self.closed = True
        self.changed.set()

    def _remark(self, line: str) -> None:
        self.remark = line

    def _record(self) -> None:
        for name, value in self.shown.items():
            metric, tags = series(name)
            if metric not in self.gauges:
                self.gauges[metric] = Gauge(metric, f"{name}, of the trial's last epoch", (*TAGS, *tags))
            self.gauges[metric].set(value, self.tags | tags)

    def _repeat(self) -> None:
        # Ray drops a value that nobody set for some 20 s, and epochs may take longer than that.
        while not self.guard.failed:
            self.changed.clear()
            self.guard(self._record, None)
            if self.closed:
                return
            self.changed.wait(EVERY)


def series(name: str) -> tuple[str, dict[str, str]]:
    """A figure's name as a metric's, and its tags: teacher/max_median_norm/3 has its layer as one."""
    stem, _, last = name.rpartition("/")
    stem, tags = (stem, {LAYER: last}) if stem and last.isdigit() else (name, {})
    return PREFIX + re.sub(r"\W", "_", stem, flags=re.ASCII), tags
