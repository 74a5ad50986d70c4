"""Parameters as axes."""

from __future__ import annotations

import math
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution


class Axis:
    """A parameter as an axis: numbers, logarithmic if the search draws them so, or its choices side by side."""

    def __init__(self, name: str, distribution: BaseDistribution) -> None:
        self.name = name
        self.choices: list[Any] | None = None
        self.log = False
        if isinstance(distribution, CategoricalDistribution):
            self.choices = list(distribution.choices)
            self.low, self.high = 0.0, float(len(self.choices) - 1)
        else:
            assert isinstance(distribution, (FloatDistribution, IntDistribution))
            self.log = distribution.log
            self.low, self.high = float(distribution.low), float(distribution.high)

    def place(self, value: Any) -> float:
        """A value's position: the number itself, or the index of a choice."""
        return float(self.choices.index(value)) if self.choices is not None else float(value)

    def share(self, value: Any) -> float:
        """A value's position in its range, from 0 to 1, on the scale on which it was drawn."""
        low, high, at = (self._scaled(v) for v in (self.low, self.high, self.place(value)))
        return (at - low) / (high - low) if high > low else 0.5

    def value_at(self, share: float) -> float:
        """The number at a share of the range; below 0 and above 1 it lies outside."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        at = low + share * (high - low)
        return math.exp(at) if self.log else at

    def layout(self) -> dict[str, Any]:
        """The layout of a plotly axis."""
        title = {"text": self.name}
        if self.choices is not None:
            ticks = list(range(len(self.choices)))
            return {
                "title": title,
                "tickvals": ticks,
                "ticktext": [str(c) for c in self.choices],
                "range": [-0.5, len(ticks) - 0.5],
                "zeroline": False,
            }
        pad = 0.04
        ends = (
            [self.value_at(-pad), self.value_at(1 + pad)] if self.high > self.low else [self.low * 0.9, self.high * 1.1]
        )
        if self.log:
            ticks_ = log_ticks(self.low, self.high)
            return {
                "title": title,
                "type": "log",
                "range": [math.log10(e) for e in ends],
                "tickvals": ticks_,
                "ticktext": [f"{t:g}" for t in ticks_],
            }
        if ends[0] == ends[1]:
            ends = [ends[0] - 1, ends[1] + 1]
        return {"title": title, "range": ends, "nticks": 6, "zeroline": False}

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.log else value


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis: its ends, and round numbers between them that do not overlap."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    apart = (high / low) ** 0.13
    for digits in ((1, 2, 5), (1, 3), (1,)):
        round_ = [d * 10.0**p for p in range(first, last + 1) for d in digits]
        between = [t for t in round_ if low * apart < t < high / apart]
        if len(between) <= 4:
            break
    return [low, *between[:: max(1, len(between) // 4)], high] if high > low else [low]
