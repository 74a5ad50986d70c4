"""What a run leaves of its way: history.csv, curves.png, and what its trackers are told."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from singer_ray.errors import UserError
from singer_ray.layout import CURVES, HISTORY, RUN
from singer_ray.storage import read_json_mapping, write_whole
from singer_ray.tracking.background import close
from singer_ray.tracking.callback import Parameters
from singer_ray.tracking.curves import draw_curves
from singer_ray.tracking.history import EPOCH, SECONDS, History
from singer_ray.tracking.tracker import one_line
from singer_ray.tracking.trackers import TRAIN, make_trackers

EXPERIMENT = "singer_ray.train"
"""Under which trackers file all single runs."""
SECONDS_BETWEEN = 60.0
"""Between two pictures of the curves."""
COMPLETE, STOPPED, FAIL = "COMPLETE", "PRUNED", "FAIL"
"""How a session of a run ends, as trackers know it from trials: with its last epoch, by Ctrl-C, by an error."""


class RunRecord:
    """Hears of each epoch of the run in OUT. Nothing that fails here ends the training: it is said once.

    `log` prints a remark.
    """

    def __init__(
        self, out: Path, parameters: Parameters, trackers: Sequence[str] = (), *, log: Callable[[str], object] = print
    ) -> None:
        self.out, self.parameters, self.log = out, parameters, log
        self.history = History(out)
        self.trackers = make_trackers(trackers, EXPERIMENT, out, log, setting=TRAIN)
        self.label = out.absolute().name
        self.begun = self.drawn = time.monotonic()
        self.spent = 0.0
        self.failed: set[str] = set()

    def begin(self, done: int, row: Mapping[str, float] | None = None) -> None:
        """The run starts, or goes on after `done` epochs, the last of which reported `row`."""
        self._safely(RUN, self._name)
        if done:
            self._safely(HISTORY, lambda: setattr(self, "history", History.until(self.out, done)))
            if row is not None and done not in self.history.rows:  # killed between the checkpoint and the row
                self.history.add(row)
                self._safely(HISTORY, self.history.write)
            self.spent = self.history.rows.get(done, {}).get(SECONDS, 0.0)
        self.begun = time.monotonic()
        for tracker in self.trackers:
            tracker.on_trial_start(self.label, self.parameters)

    def epoch(self, metrics: Mapping[str, float]) -> None:
        """An epoch has ended; `metrics` has its number under `epoch`."""
        self.history.add({**metrics, SECONDS: self.spent + time.monotonic() - self.begun})
        self._safely(HISTORY, self.history.write)
        for tracker in self.trackers:
            tracker.on_epoch_end(self.label, int(metrics[EPOCH]), metrics)
        if time.monotonic() - self.drawn >= SECONDS_BETWEEN:
            self.draw()
            self.drawn = time.monotonic()

    def draw(self) -> None:
        """curves.png, by the epochs so far."""
        self._safely(CURVES, lambda: draw_curves(self.history.rows, self.out / CURVES))

    def end(self, state: str) -> None:
        """This session of the run is over."""
        if state != COMPLETE:  # what ended it is said already, and may be what ails these as well
            self.failed |= {HISTORY, CURVES}
        if self.history.rows and self.out.is_dir():
            self._safely(HISTORY, self.history.write)
            self.draw()
        last: Mapping[str, Any] = self.history.rows[max(self.history.rows)] if self.history.rows else {}
        for tracker in self.trackers:
            tracker.on_trial_end(self.label, state, last)
        close(self.trackers)

    def _name(self) -> None:
        """Two runs of one name are not mixed up by a server: each has a label of its own, kept in run.json."""
        path = self.out / RUN
        try:
            small = path.is_file() and path.stat().st_size < 4096
            known = read_json_mapping(path.read_bytes(), str(path)).get("id") if small else None
        except (OSError, UserError):
            known = None
        if not (isinstance(known, str) and known.isalnum() and len(known) <= 32):
            known = secrets.token_hex(3)
            write_whole(path, json.dumps({"id": known}) + "\n")
        self.label = f"{self.out.absolute().name}-{known}"

    def _safely(self, name: str, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:
            if name not in self.failed:
                self.failed.add(name)
                self.log(f"{name} cannot be written, training goes on without it: {one_line(error)}")
