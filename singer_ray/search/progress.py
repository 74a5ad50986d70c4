"""What a search shows while it runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from singer_ray.search.leaderboard import cell
from singer_ray.search.optuna_search import FAIL, FAULT, trial_state


class SearchProgress(Callback):
    """Follows the trials of a search. `on_end` hears the id of every trial that has ended."""

    def __init__(
        self, console: Console, *, metric: str, mode: str, epochs: int, trials: int, on_end: Callable[[str], None]
    ) -> None:
        self.console, self.metric, self.mode, self.epochs, self.wanted = console, metric, mode, epochs, trials
        self.on_end = on_end
        self.begin = time.monotonic()
        self.rows: dict[str, dict[str, Any]] = {}
        self.live: Live | None = None

    def setup(self, *args: Any, **info: Any) -> None:
        if self.console.is_terminal:
            self.live = Live(self._table(), console=self.console, refresh_per_second=2, transient=True)
            self.live.start()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        config = trial.config
        row = {"number": config["number"], "parameters": config["parameters"], "state": "RUNNING", "epoch": 0}
        known = self.rows.setdefault(trial.trial_id, row)
        known["state"] = "RUNNING"
        values = "  ".join(f"{name} {cell(value)}" for name, value in config["parameters"].items())
        self._say(f"trial {config['number']:03d} started: {values}")

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        row = self.rows[trial.trial_id]
        row["epoch"], row["value"] = result["epoch"], result.get(self.metric)
        row["test"] = result.get(self.metric.replace("val/", "test/", 1))
        row[FAULT] = result.get(FAULT)
        if FAULT not in result:
            self._say(
                f"trial {row['number']:03d} epoch {row['epoch']}/{self.epochs}: {self.metric} {cell(row['value'])}, "
                f"{cell(float(result.get('images_per_second', 0)))} images/s"
            )

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._end(trial, error=False)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._end(trial, error=True)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        if self.live is not None:
            self.live.stop()

    def best(self) -> dict[str, Any] | None:
        """The row with the best value so far."""
        valued = [row for row in self.rows.values() if row.get("value") is not None]
        pick = max if self.mode == "max" else min
        return pick(valued, key=lambda row: row["value"]) if valued else None

    def summary(self) -> str:
        """Trials by state, the best so far and the time left, in one line."""
        states = [row["state"] for row in self.rows.values()]
        ended = sum(state != "RUNNING" for state in states)
        spent = time.monotonic() - self.begin
        left = f", about {spent / ended * (self.wanted - ended):.0f} s left" if 0 < ended < self.wanted else ""
        best = self.best()
        leader = f", best {self.metric} {cell(best['value'])} (trial {best['number']:03d})" if best else ""
        counts = ", ".join(f"{states.count(state)} {state.lower()}" for state in dict.fromkeys(states))
        return f"{len(states)} of {self.wanted} trials: {counts or 'none yet'}{leader}, {spent:.0f} s{left}"

    def _end(self, trial: Trial, *, error: bool) -> None:
        row = self.rows.get(trial.trial_id)
        self.on_end(trial.trial_id)
        if row is None:
            return
        result = trial.last_result or {}
        row["state"] = trial_state(result, metric=self.metric, epochs=self.epochs, error=error)
        why = f" ({row[FAULT]})" if row["state"] == FAIL and row.get(FAULT) else ""
        self._say(f"trial {row['number']:03d} {row['state']} after {row['epoch']} epochs{why}. {self.summary()}")

    def _say(self, line: str) -> None:
        if self.live is not None:
            self.live.update(self._table())
        else:
            self.console.print(line, highlight=False)

    def _table(self) -> Group:
        table = Table()
        names = list(dict.fromkeys(name for row in self.rows.values() for name in row["parameters"]))
        for column in ("trial", "state", "epoch", self.metric, *(name.rpartition(".")[2] for name in names)):
            table.add_column(column, justify="left" if column in ("trial", "state") else "right")
        best = self.best()
        for row in list(self.rows.values())[-20:]:
            values = [cell(row["parameters"].get(name)) for name in names]
            style = "bold green" if row is best else ("dim" if row["state"] in ("PRUNED", "FAIL") else "")
            head = (f"{row['number']:03d}", row["state"], f"{row['epoch']}/{self.epochs}", cell(row.get("value")))
            table.add_row(*head, *values, style=style)
        return Group(table, Text(self.summary()))

    def __getstate__(self) -> dict[str, Any]:
        # Tune snapshots its callbacks; consoles and live displays hold locks and stay with this process.
        return {"rows": self.rows}
