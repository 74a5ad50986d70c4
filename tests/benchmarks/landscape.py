"""The recorded learning curves (curves.json) as something to search: any point of the space has a curve."""

from __future__ import annotations

import functools
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import FloatDistribution, IntDistribution

from singer_ray.config import Config, load_preset
from singer_ray.search.space.space import SearchSpace, load_space

CURVES = Path(__file__).with_name("curves.json")


@dataclass(frozen=True)
class Curve:
    """What a trial reports, epoch by epoch."""

    values: list[float]
    """The metric after each epoch, up to the last or to the failure."""
    quality: float
    """The last value without noise: what the point is worth."""
    failed: int | None = None
    """Epoch in which the loss was no longer finite."""


class Recorded:
    """The recorded curves, and two ways to tell the curve of a point between them.

    `nearest` takes that of the nearest recorded setting in the unit cube, logarithmic where the space is. It is made of
    real runs, but flat in between: a search that suggests points close to a good one learns nothing new there.
    `smooth` is a Gaussian process through the curves, all epochs at once, plus noise: what the process, without that
    setting, got wrong on one of the recorded settings.
    """

    def __init__(self, path: Path = CURVES) -> None:
        raw = json.loads(path.read_text(encoding="utf-8"))["metrics"]
        self.metric: str = raw["metric"]
        self.config: Config = load_preset("demo").override(raw["settings"])
        self.space: SearchSpace = load_space("singer", self.config)
        self.curves = [Curve(c["values"], (c["values"] or [0.0])[-1], c["failed"]) for c in raw["curves"]]
        self.places = np.array([self.place(c["parameters"]) for c in raw["curves"]])

    def place(self, parameters: Mapping[str, Any]) -> np.ndarray:
        """A point in the unit cube."""
        place = []
        for name, distribution in self.space.distributions.items():
            assert isinstance(distribution, FloatDistribution | IntDistribution)
            scale = math.log if distribution.log else float
            low, high = scale(distribution.low), scale(distribution.high)
            place.append((scale(parameters[name]) - low) / (high - low))
        return np.array(place)

    def nearest(self, parameters: Mapping[str, Any], draw: np.random.Generator | None = None) -> Curve:
        """The curve of the nearest recorded setting; `draw` is not used."""
        distance = ((self.places - self.place(parameters)) ** 2).sum(axis=1)
        return self.curves[int(distance.argmin())]

    def smooth(self, parameters: Mapping[str, Any], draw: np.random.Generator) -> Curve:
        """The process's curve with one of its errors, drawn; fails where the nearest recorded setting failed."""
        failed = self.nearest(parameters).failed
        mean = self._process.predict(self.place(parameters))
        values = (mean + self._process.errors[draw.integers(len(self._process.errors))])[: failed and failed - 1]
        return Curve(values.tolist(), float(mean[-1]), failed)

    @functools.cached_property
    def _process(self) -> _Process:
        ended = [n for n, curve in enumerate(self.curves) if curve.failed is None]
        return _Process(self.places[ended], np.array([self.curves[n].values for n in ended]))

    def explained(self) -> list[float]:
        """Share of the variance, by epoch, that the process explains of settings it was not shown."""
        values = np.array([curve.values for curve in self.curves if curve.failed is None])
        shares: list[float] = (1 - (self._process.errors**2).mean(axis=0) / values.var(axis=0)).tolist()
        return shares


class _Process:
    """A Gaussian process from places [n, dim] to curves [n, epochs], its scales fitted to the curves' likelihood."""

    def __init__(self, places: np.ndarray, curves: np.ndarray) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, WhiteKernel

        self.places, self.mean, self.scale = places, curves.mean(axis=0), curves.std(axis=0)
        targets = (curves - self.mean) / self.scale
        kernel = RBF(np.ones(places.shape[1]), (0.1, 30.0)) + WhiteKernel(0.1, (1e-4, 1.0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a parameter that does not matter has no scale
            fitted = GaussianProcessRegressor(kernel, n_restarts_optimizer=2, random_state=0).fit(places, targets)
        self.kernel = fitted.kernel_.k1
        inverse = np.linalg.inv(fitted.kernel_(places))
        self.weights = inverse @ targets
        self.errors: np.ndarray = self.weights / inverse.diagonal()[:, None] * self.scale
        """What it gets wrong on each setting without having seen it [n, epochs]."""

    def predict(self, place: np.ndarray) -> np.ndarray:
        """The curve at a place."""
        found: np.ndarray = (self.kernel(place[None], self.places) @ self.weights)[0] * self.scale + self.mean
        return found
