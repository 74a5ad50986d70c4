"""What a search optimises: metrics and their directions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.study import StudyDirection

from singer_ray.errors import UserError, nearest
from singer_ray.metrics import MAX, MIN, direction


@dataclass(frozen=True)
class Objectives:
    """One or several metrics with their directions, and the scalar by which trials are stopped early."""

    names: tuple[str, ...]
    modes: tuple[str, ...]
    """ "max" or "min", one for each name."""
    stop_metric: str
    stop_mode: str

    @classmethod
    def of(cls, wanted: Sequence[str], stop_metric: str | None, reported: Sequence[str]) -> Objectives:
        """From `search.objectives`, `search.stop_metric` and the metrics that trials report, the preferred one first.

        Raises UserError for a metric that is never reported, is named twice, or has an unknown direction.
        """
        if not wanted and not reported:
            raise UserError(
                "There is nothing to optimise: the validation images have neither labels nor masks nor depth. Give "
                "labelled ones with --data.val, or --evaluation.data.source imagefolder and its train and val folders."
            )
        pairs = [_parse(text) for text in wanted or reported[:1]]
        stop, stop_mode = _parse(stop_metric, dict(pairs), "search.stop_metric") if stop_metric else pairs[0]
        for setting, name in (*(("search.objectives", name) for name, _ in pairs), ("search.stop_metric", stop)):
            if name not in reported:
                raise UserError(
                    f"{setting} {name!r} is never reported.{nearest(name, reported)} "
                    f"Allowed with this data: {', '.join(reported)}."
                )
        names = tuple(name for name, _ in pairs)
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise UserError(f"search.objectives names {twice} twice. Name each metric once.")
        return cls(names, tuple(mode for _, mode in pairs), stop, stop_mode)

    @property
    def several(self) -> bool:
        return len(self.names) > 1

    @property
    def stops_apart(self) -> bool:
        """Whether the metric that stops trials differs from the (only) objective."""
        return self.several or (self.stop_metric, self.stop_mode) != (self.names[0], self.modes[0])

    @property
    def first(self) -> str:
        return self.names[0]

    @property
    def directions(self) -> list[StudyDirection]:
        """As Optuna names them."""
        return [StudyDirection.MAXIMIZE if mode == MAX else StudyDirection.MINIMIZE for mode in self.modes]

    def values(self, result: Mapping[str, Any]) -> list[float] | None:
        """The objectives in a result; None when one is missing or not finite."""
        values = [result.get(name) for name in self.names]
        if any(not isinstance(value, (int, float)) or not math.isfinite(value) for value in values):
            return None
        return [float(value) for value in values if value is not None]

    def costs(self, values: Sequence[float]) -> list[float]:
        """The values, negated where more is better: less is better everywhere."""
        return [-value if mode == MAX else value for mode, value in zip(self.modes, values)]

    def as_flags(self) -> list[str]:
        """As `search.objectives` takes them."""
        return [f"{name}:{mode}" for name, mode in zip(self.names, self.modes)]

    def __str__(self) -> str:
        return ", ".join(f"{name} ({mode})" for name, mode in zip(self.names, self.modes))


def front(costs: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points that no other dominates (no worse in any objective, better in one); less is better."""

    def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
        return all(a <= b for a, b in zip(one, other)) and any(a < b for a, b in zip(one, other))

    return [n for n, own in enumerate(costs) if not any(dominates(other, own) for other in costs)]


def _parse(text: str, known: Mapping[str, str] | None = None, setting: str = "search.objectives") -> tuple[str, str]:
    """Name and direction: as written, else as `known` for that name, else by the kind of metric."""
    name, colon, mode = text.partition(":")
    if colon and mode not in (MAX, MIN):
        raise UserError(f"{setting} {text!r} has the direction {mode!r}. Allowed: {name}:max or {name}:min.")
    return name, mode or (known or {}).get(name) or direction(name)
