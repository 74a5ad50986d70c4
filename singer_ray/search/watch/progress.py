"""What a search shows while it runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from singer_ray.console.terminal import Column, FittedTable, log
from singer_ray.errors import visible
from singer_ray.search.strategy.cost import duration
from singer_ray.search.study.leaderboard import cell, heads
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.schema import (
    FAIL,
    FAULT,
    PRUNED,
    QUEUED,
    RUNNING,
    epochs_of,
    label_of_row,
    last_result,
    own_rows,
    state_of,
    values_by_epoch,
)
from singer_ray.tracking.background import Guard
from singer_ray.tracking.callback import Callback

SHOWN = 20


@dataclass
class _Row:
    label: str
    parameters: dict[str, Any]
    state: str = QUEUED
    epoch: int = 0
    values: dict[str, float] = field(default_factory=dict)
    error: str | None = None


class SearchProgress(Callback):
    """Follows the trials of a study, as a callback of its search, or once for `--status`.

    Args:
        wanted: trials that the study shall have.
        left: seconds that the rest will take, as far as that can be told.
    """

    def __init__(
        self,
        console: Console,
        objectives: Objectives,
        *,
        epochs: int,
        wanted: int,
        left: Callable[[], float | None] = lambda: None,
        spent: float = 0.0,
    ) -> None:
        self.console, self.objectives, self.epochs, self.wanted = console, objectives, epochs, wanted
        self.left = left
        self.until: float | None = None
        """When the rest will be done, as far as that could be told at the last event."""
        self.begin = time.monotonic() - spent
        self.rows: dict[str, _Row] = {}
        self.live: Live | None = None
        self.last = True
        """Whether the live table stays on the screen when it is closed: no other table follows."""
        self._unsaid: list[str] = []
        self._drawing = Guard("the live table", self._unsaid.append)
        self._estimate = Guard("the estimate of the time left", self._unsaid.append)

    def read(self, study: optuna.Study) -> None:
        """Takes over what a study has."""
        for row in own_rows(study):
            label = label_of_row(row)
            by_epoch = values_by_epoch(row, self.objectives)
            values = {k: v for k, v in last_result(row).items() if k in self._names()}
            values = values or (by_epoch[max(by_epoch)] if by_epoch else {})
            error = row.user_attrs.get(FAULT)
            self.rows[label] = _Row(label, row.params, state_of(row), epochs_of(row), values, error)
        self._look_ahead()

    def show(self) -> None:
        """Starts the live table, where there is a terminal."""
        if self.console.is_terminal:
            # Drawn twice a second from a thread: the clock goes on, whatever the trials do.
            # The last one stays on the screen, also after Ctrl-C.
            self.live = Live(get_renderable=self._drawn, console=self.console, refresh_per_second=2)
            self.live.start()

    def on_trial_queued(self, trial: str, parameters: Mapping[str, Any]) -> None:
        known = self.rows.setdefault(trial, _Row(trial, dict(parameters)))
        again = f" again after epoch {known.epoch}" if known.epoch else ""
        known.state = QUEUED
        self._look_ahead()
        self._log(f"trial {trial} queued{again}")

    def on_trial_start(self, trial: str, parameters: Mapping[str, Any]) -> None:
        known = self.rows.setdefault(trial, _Row(trial, dict(parameters)))
        again = f" again after epoch {known.epoch}" if known.epoch else ""
        known.state = RUNNING
        self._look_ahead()
        values = "  ".join(f"{name} {cell(value)}" for name, value in parameters.items())
        self._log(f"trial {trial} started{again}: {values}")

    def on_epoch_end(self, trial: str, epoch: int, metrics: Mapping[str, Any]) -> None:
        row = self.rows[trial]
        row.epoch = epoch
        now = {name: metrics[name] for name in self._names() if isinstance(metrics.get(name), (int, float))}
        row.values |= now  # not every epoch is validated
        if self.live is not None:
            self._look_ahead()
        shown = ", ".join(f"{name} {cell(value)}" for name, value in now.items() if name in self._watched())
        speed = f"{cell(float(metrics.get('images_per_second', 0)))} images/s"
        self._log(f"trial {trial} epoch {epoch}/{self.epochs}: {', '.join(filter(None, (shown, speed)))}")

    def on_trial_end(self, trial: str, state: str, metrics: Mapping[str, Any]) -> None:
        row = self.rows[trial]
        row.state, row.error = state, metrics.get(FAULT)
        self._look_ahead()
        why = f" ({row.error})" if row.error else ""
        epochs = f"{row.epoch} epoch{'s' * (row.epoch != 1)}"
        self._log(f"trial {trial} {state} after {epochs}{why}. {self.summary()}")

    def close(self) -> None:
        if self.live is not None:
            self.live.transient = not self.last
            self.live.stop()
            self.live = None

    def best(self) -> _Row | None:
        """The row with the best value of the first objective so far."""
        first = self.objectives.first
        valued = [row for row in list(self.rows.values()) if first in row.values and row.state != FAIL]
        pick = max if self.objectives.modes[0] == "max" else min
        return pick(valued, key=lambda row: row.values[first]) if valued else None

    def summary(self) -> str:
        """Trials by state, the best so far and the time left, in one line."""
        states = [row.state for row in list(self.rows.values())]
        left = 0.0 if self.until is None else self.until - time.monotonic()
        ahead = f", about {duration(left)} left" if left > 0 else ""
        best, first = self.best(), self.objectives.first
        leader = f", best {first} {cell(best.values[first])} (trial {best.label})" if best else ""
        counts = ", ".join(f"{states.count(state)} {state.lower()}" for state in dict.fromkeys(states))
        spent = duration(time.monotonic() - self.begin)
        return f"{len(states)} of {self.wanted} trials: {counts or 'none yet'}{leader}, {spent}{ahead}"

    def table(self) -> Group:
        """The latest trials, and the summary below."""
        rows = list(self.rows.values())[-SHOWN:]
        names = list(dict.fromkeys(name for row in rows for name in row.parameters))
        waits = [row.state == QUEUED and not row.epoch for row in rows]
        columns = [
            Column("trial", [row.label for row in rows], right=False, needed=True),
            Column("state", [row.state for row in rows], right=False, needed=True),
            Column("epoch", ["" if new else f"{row.epoch}/{self.epochs}" for row, new in zip(rows, waits)]),
        ]
        for number, name in enumerate(self._watched()):
            columns.append(Column(name, [cell(row.values.get(name)) for row in rows], needed=not number))
        for name, head in heads(names).items():
            columns.append(Column(head, [cell(row.parameters.get(name)) for row in rows]))
        best = self.best()
        dim = (PRUNED, FAIL, QUEUED)
        styles = ["bold green" if row is best else ("dim" if row.state in dim else "") for row in rows]
        return Group(FittedTable(columns, styles=styles), Text(visible(self.summary())))

    def _drawn(self) -> RenderableType:
        """The table, called from a thread of Rich's, where an error would end the picture without a word."""
        return self._drawing(self.table, Group())

    def _watched(self) -> list[str]:
        return list(dict.fromkeys((*self.objectives.names, self.objectives.stop_metric)))

    def _names(self) -> list[str]:
        return [*self._watched(), *(name.replace("val/", "test/", 1) for name in self.objectives.names)]

    def _look_ahead(self) -> None:
        left = self._estimate(self.left, None)
        self.until = None if left is None else time.monotonic() + left

    def _log(self, line: str) -> None:
        if self.live is not None and self._drawing.failed:
            self.close()
        if self.live is not None:
            self.live.refresh()
        else:
            log(self.console, line)
        while self._unsaid:
            log(self.console, self._unsaid.pop(0))
