"""What a search shows while it runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from singer_ray.search.budget import duration
from singer_ray.search.leaderboard import cell
from singer_ray.search.objectives import Objectives
from singer_ray.search.study import (
    FAIL,
    FAULT,
    PRUNED,
    RUNNING,
    epochs_of,
    label_of_row,
    last_result,
    own_rows,
    values_by_epoch,
)

SHOWN = 20


@dataclass
class _Row:
    label: str
    parameters: dict[str, Any]
    state: str = RUNNING
    epoch: int = 0
    values: dict[str, float] = field(default_factory=dict)
    fault: str | None = None


class SearchProgress:
    """Follows the trials of a study, as one of the ledger's watchers or once for `--status`.

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

    def read(self, study: optuna.Study) -> None:
        """Takes over what a study has."""
        for row in own_rows(study):
            label = label_of_row(row)
            by_epoch = values_by_epoch(row, self.objectives)
            values = {k: v for k, v in last_result(row).items() if k in self._names()}
            values = values or (by_epoch[max(by_epoch)] if by_epoch else {})
            fault = row.user_attrs.get(FAULT)
            self.rows[label] = _Row(label, row.params, row.state.name, epochs_of(row), values, fault)
        self._look_ahead()

    def show(self) -> None:
        """Starts the live table, where there is a terminal."""
        if self.console.is_terminal:
            # Drawn twice a second from a thread: the clock goes on, whatever the trials do.
            self.live = Live(get_renderable=self.table, console=self.console, refresh_per_second=2, transient=True)
            self.live.start()

    def start(self, trial: str, parameters: Mapping[str, Any]) -> None:
        known = self.rows.setdefault(trial, _Row(trial, dict(parameters)))
        again = f" again after epoch {known.epoch}" if known.epoch else ""
        known.state = RUNNING
        self._look_ahead()
        values = "  ".join(f"{name} {cell(value)}" for name, value in parameters.items())
        self._say(f"trial {trial} started{again}: {values}")

    def log(self, trial: str, epoch: int, metrics: Mapping[str, Any]) -> None:
        row = self.rows[trial]
        row.epoch = epoch
        now = {name: metrics[name] for name in self._names() if isinstance(metrics.get(name), (int, float))}
        row.values |= now  # not every epoch is validated
        if self.live is not None:
            self._look_ahead()
        shown = ", ".join(f"{name} {cell(value)}" for name, value in now.items() if name in self._watched())
        speed = f"{cell(float(metrics.get('images_per_second', 0)))} images/s"
        self._say(f"trial {trial} epoch {epoch}/{self.epochs}: {', '.join(filter(None, (shown, speed)))}")

    def end(self, trial: str, state: str, metrics: Mapping[str, Any]) -> None:
        row = self.rows[trial]
        row.state, row.fault = state, metrics.get(FAULT)
        self._look_ahead()
        why = f" ({row.fault})" if row.fault else ""
        self._say(f"trial {trial} {state} after {row.epoch} epoch{'s' * (row.epoch != 1)}{why}. {self.summary()}")

    def close(self) -> None:
        if self.live is not None:
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
        shown = Table()
        rows = list(self.rows.values())[-SHOWN:]
        names = list(dict.fromkeys(name for row in rows for name in row.parameters))
        watched = self._watched()
        for column in ("trial", "state", "epoch", *watched, *(name.rpartition(".")[2] for name in names)):
            shown.add_column(column, justify="left" if column in ("trial", "state") else "right")
        best = self.best()
        for row in rows:
            cells = [cell(row.values.get(name)) for name in watched]
            cells += [cell(row.parameters.get(name)) for name in names]
            style = "bold green" if row is best else ("dim" if row.state in (PRUNED, FAIL) else "")
            shown.add_row(row.label, row.state, f"{row.epoch}/{self.epochs}", *cells, style=style)
        return Group(shown, Text(self.summary()))

    def _watched(self) -> list[str]:
        return list(dict.fromkeys((*self.objectives.names, self.objectives.stop_metric)))

    def _names(self) -> list[str]:
        return [*self._watched(), *(name.replace("val/", "test/", 1) for name in self.objectives.names)]

    def _look_ahead(self) -> None:
        left = self.left()
        self.until = None if left is None else time.monotonic() + left

    def _say(self, line: str) -> None:
        if self.live is not None:
            self.live.refresh()
        else:
            self.console.print(line, highlight=False)
