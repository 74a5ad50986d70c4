"""Sessions of a search without Ray, on a virtual clock: their trials are played, all else is the session's own."""

from __future__ import annotations

import functools
import io
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from singer_ray.config import Config, load_preset
from singer_ray.nodes.prices import Price
from singer_ray.search.driver import session as sessions
from singer_ray.search.driver.ask_tell import AskTell
from singer_ray.search.driver.session import SearchSession, SessionSpec
from singer_ray.search.space.space import load_space
from singer_ray.search.state.store import SearchStore
from singer_ray.search.strategy import stopping
from singer_ray.search.strategy.cost import Meter
from singer_ray.search.strategy.stopping import STOP, Limits
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.opening import create_study, load_study, storage_of
from singer_ray.search.study.running import Assignment
from singer_ray.search.workers.resources import ResourcePlan, Share
from singer_ray.tracking.callback import Callback
from tests.search.studies import MIOU, RATE

Curve = Callable[[Assignment, int], Mapping[str, Any]]
"""What a trial reports of an epoch."""


def rising(assignment: Assignment, epoch: int) -> dict[str, Any]:
    """A higher learning rate is better, as is a later epoch."""
    return {"val/miou": 30 * assignment.parameters["train.lr"] + 0.01 * epoch}


class Killed(BaseException):
    """What ends a driver without a word."""


class FakeSession(SearchSession):
    """Asks and tells as Tune does, several trials in turn, an epoch each."""

    curve: Curve
    epoch: Callable[[], None]
    """Lets an epoch pass."""

    def _tune(self, ask_tell: AskTell, limits: Limits, kind: str) -> None:
        running: deque[tuple[Assignment, int]] = deque()
        while limits.check().action != STOP:
            while len(running) < self.plan.concurrent and (found := ask_tell.ask(f"t{len(ask_tell.study.trials)}")):
                running.append((found, 1))
            if not running:
                return
            assignment, epoch = running.popleft()
            self.epoch()
            result = {"epoch": epoch, "trained_seconds": float(epoch), **self.curve(assignment, epoch)}
            ask_tell.report(assignment.number, result)
            if epoch == ask_tell.spec.epochs or ask_tell.should_stop(assignment.number):
                ask_tell.end(assignment.number, result)
            else:
                running.append((assignment, epoch + 1))


class Search:
    """A search in a folder, each of whose sessions is played: two trials at a time that hold half a GPU each.

    An epoch takes ten seconds, and the nodes cost a dollar a second.
    """

    def __init__(
        self, out: Path, settings: Mapping[str, Any], *, objectives: Objectives = MIOU, space: Mapping[str, Any] = RATE
    ) -> None:
        small = {"train.epochs": 2, "search.scheduler": "none", "search.sampler": "random", "search.trackers": ()}
        self.config = load_preset("demo").override({**small, **settings})
        self.out, self.objectives, self.space = out, objectives, load_space(space, self.config)
        self.now = 1000.0
        self.plan = ResourcePlan(2, Share(1, 1.0, 0.5))
        self.screen = io.StringIO()
        out.mkdir(exist_ok=True)
        self.storage = storage_of(None, out)
        self.study = create_study(self.storage, out.name, objectives)
        self.record: dict[str, Any] = {"name": out.name, "study": None, "sessions": []}

    def run(self, curve: Curve = rising, changes: Mapping[str, Any] | None = None) -> Any:
        """Another session, with these settings changed; its leaderboard."""
        config = self.config.override(changes or {})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sessions, "package_best", lambda *given: ())
            patch.setattr(sessions, "Meter", functools.partial(Meter, clock=self.clock))
            patch.setattr(stopping, "time", SimpleNamespace(monotonic=self.clock))
            return self._session(config, curve).run()[0]

    def clock(self) -> float:
        return self.now

    def _pass(self) -> None:
        self.now += 10.0

    def _session(self, config: Config, curve: Curve) -> FakeSession:
        pool: Any = SimpleNamespace(places=Callback)
        store = SearchStore(self.out, None, lambda line: None)
        session = FakeSession(
            SessionSpec(
                config,
                self.space,
                self.out.name,
                store,
                self.plan,
                pool,
                self.study,
                self.storage,
                self.record,
                None,
                lambda: Price(3600.0, 1, "by x"),
                Console(file=self.screen, width=200),
            )
        )
        session.curve, session.epoch = curve, self._pass
        return session

    def states(self, name: str = "") -> list[str]:
        """Of the rows of the study, or of that with `name` behind its own."""
        return [row.state.name for row in load_study(self.storage, f"{self.out.name}{name}").trials]
