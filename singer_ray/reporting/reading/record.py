"""A search and its trials, as a report needs them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from optuna.distributions import BaseDistribution

from singer_ray.reporting.text import short_names
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.schema import COMPLETE, FAIL, PRUNED, QUEUED, RUNNING

STATES = (COMPLETE, PRUNED, RUNNING, QUEUED, FAIL)


@dataclass(frozen=True)
class TrialRecord:
    """One trial of the search."""

    number: int
    state: str
    parameters: Mapping[str, Any]
    values: tuple[float, ...] | None
    """The objectives: final ones of a finished trial, else those of its last epoch; None when they are not known."""
    metrics: Mapping[str, float]
    curve: Mapping[int, float]
    """Epoch -> the metric by which trials are stopped."""
    epochs: int
    seconds: float
    begin: datetime | None
    """When a host first took it; None before that."""
    end: datetime | None
    """None while it runs."""
    resumed_from: int | None
    fault: str | None
    rank: int = 0
    front: bool = False
    """Whether no finished trial is better in all objectives."""
    seeds: int | None = None
    mean: float | None = None
    spread: float | None = None
    """Over seeds, of the first objective; None when the trial was not repeated."""

    @property
    def id(self) -> str:
        return f"{self.number:03d}"


@dataclass(frozen=True)
class SessionRecord:
    """One stretch of a search between start (or resume) and end."""

    begin: float
    end: float | None
    """Unix seconds."""
    nodes: int | None = None
    concurrent: int | None = None
    gpus: float | None = None


@dataclass(frozen=True)
class Student:
    """An exported student: `best/<rank>-<trial id>`."""

    folder: Path
    rank: int
    trial_id: str
    metrics: Mapping[str, float]
    pictures: Sequence[Path]


@dataclass(frozen=True)
class SearchRecord:
    """A search, as read from its folder."""

    folder: Path
    name: str
    objectives: Objectives
    epochs: int | None
    """Epochs of a finished trial."""
    trials: Sequence[TrialRecord]
    """Without imported and waiting ones, the best first."""
    imported: Mapping[str, int]
    """Address of an earlier search -> finished trials that it gave."""
    distributions: Mapping[str, BaseDistribution]
    """Of every parameter that some trial has, in the order of the search space."""
    sessions: Sequence[SessionRecord]
    seconds: float | None
    """Wall time of all sessions."""
    gpu_hours: float | None
    money: float | None
    price: float | None
    """Dollars per node and hour."""
    students: Sequence[Student]
    config: str | None
    """config.yaml and space.yaml, passwords of addresses masked."""
    space: str | None
    notes: Sequence[str] = field(default=())
    """What could not be read."""
    remarks: Sequence[str] = field(default=())
    """What the search said about its data at the start."""

    @cached_property
    def labels(self) -> dict[str, str]:
        """Dotted name of a parameter -> its shortest end that no other parameter shares."""
        return short_names(self.distributions)

    @cached_property
    def finished(self) -> list[TrialRecord]:
        """Trials with all their epochs and objectives, the best first."""
        return [t for t in self.trials if t.state == COMPLETE and t.values is not None]

    @property
    def best(self) -> TrialRecord | None:
        """The leading finished trial."""
        return self.finished[0] if self.finished else None

    @property
    def front(self) -> list[TrialRecord]:
        return [t for t in self.finished if t.front]

    @property
    def repeated(self) -> bool:
        return any(t.seeds for t in self.trials)

    def count(self, state: str) -> int:
        return sum(t.state == state for t in self.trials)

    def values(self, objective: int) -> list[float]:
        """One objective of the finished trials, the best first by rank."""
        return [t.values[objective] for t in self.finished if t.values]

    def better(self, objective: int, one: float, other: float) -> bool:
        return one > other if self.objectives.modes[objective] == "max" else one < other

    def best_in(self, objective: int) -> TrialRecord | None:
        """The finished trial that leads in one objective alone; in the first, unless there are several, by rank."""
        if objective == 0 and not self.objectives.several:
            return self.best
        sign = 1 if self.objectives.modes[objective] == "min" else -1
        return min(self.finished, key=lambda t: sign * t.values[objective] if t.values else math.inf, default=None)

    def test_of(self, trial: TrialRecord, objective: str) -> float | None:
        """The test value that belongs to an objective on validation."""
        name = objective.replace("val/", "test/", 1)
        student = next((s for s in self.students if s.trial_id == trial.id), None)
        value = trial.metrics.get(name, (student.metrics if student else {}).get(name))
        return value if name != objective else None

    def median(self, objective: int) -> float | None:
        values = self.values(objective)
        return median(values) if values else None


def last_moment(trials: Sequence[TrialRecord], sessions: Sequence[SessionRecord]) -> datetime | None:
    """The latest time that is recorded in a search's files."""
    told = [moment for t in trials for moment in (t.begin, t.end) if moment]
    told += [datetime.fromtimestamp(session.end) for session in sessions if session.end]
    return max(told, default=None)
