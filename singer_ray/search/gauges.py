"""Figures of running trials as metrics that Prometheus can scrape and clusters/grafana.json draws."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ray.util.metrics import Gauge

from singer_ray.search.observers import Guard

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


def figures(result: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers in a result, by name."""
    numbers = {k: v for k, v in result.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def series(name: str) -> tuple[str, dict[str, str]]:
    """A figure's name as a metric's, and its tags: teacher/max_median_norm/3 has its layer as one."""
    stem, _, last = name.rpartition("/")
    stem, tags = (stem, {LAYER: last}) if stem and last.isdigit() else (name, {})
    return PREFIX + re.sub(r"\W", "_", stem, flags=re.ASCII), tags


def ascii_only(text: str) -> str:
    """A text as a tag of Ray's, which takes nothing else: ö becomes %C3%B6, so that no two texts become one."""
    return "".join(c if " " <= c <= "~" else quote(c, errors="surrogatepass") for c in text)


def describe(parameters: Mapping[str, Any]) -> str:
    """Parameters in a few words: rank=16 lr=0.004."""
    return " ".join(f"{name.rpartition('.')[2]}={_short(value)}" for name, value in parameters.items())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
