"""One session of a search, from its first trial to the best students: what a resume repeats."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pandas as pd
from optuna.pruners import NopPruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from rich.console import Console

from singer_ray.console.terminal import log
from singer_ray.errors import UserError
from singer_ray.layout import TUNE
from singer_ray.nodes import ray_cluster
from singer_ray.nodes.prices import Price
from singer_ray.nodes.ray_start import keep_keys_at_home
from singer_ray.search.driver.ask_tell import AskTell, StudySpec
from singer_ray.search.driver.winners import chosen, package_best
from singer_ray.search.state.heartbeat import Heartbeat
from singer_ray.search.state.resume_rules import resume_command
from singer_ray.search.state.store import END, FINISHED
from singer_ray.search.state.trial_checkpoint import TrialCheckpoint
from singer_ray.search.strategy.cost import Meter
from singer_ray.search.strategy.pruners import make_pruner
from singer_ray.search.strategy.samplers import exhausted, make_sampler, remarks
from singer_ray.search.strategy.stopping import GO_ON, NO_MORE_TRIALS, STOP, Budget, Limits
from singer_ray.search.study.leaderboard import leaderboard, write_leaderboard
from singer_ray.search.study.opening import create_study, load_study
from singer_ray.search.study.schema import IMPORTED, REPEAT_OF, REPEATS, SEED, objectives_of, own_rows
from singer_ray.search.watch.eta import Estimate
from singer_ray.search.watch.progress import SearchProgress
from singer_ray.tracking.background import Background, Guard, close
from singer_ray.tracking.trackers import make_trackers

if TYPE_CHECKING:
    from singer_ray.config import Config
    from singer_ray.search.space.space import SearchSpace
    from singer_ray.search.state.store import SearchStore
    from singer_ray.search.workers.pool import HostPool
    from singer_ray.search.workers.resources import ResourcePlan
    from singer_ray.training.timing import StepTimes


STEADY = 5.0
"""Seconds that a change in the number of hosts must last to count."""


@dataclass(frozen=True)
class SessionSpec:
    """What a session is given."""

    config: Config
    space: SearchSpace
    name: str
    """Of the search."""
    store: SearchStore
    plan: ResourcePlan
    pool: HostPool
    study: optuna.Study
    storage: BaseStorage
    """Of the study, and of that of its repeats."""
    record: dict[str, Any]
    """The content of search.json, kept up to date here."""
    times: StepTimes | None
    """Of a trial's parts, for the estimate."""
    price: Callable[[], Price | None]
    """Of the nodes that are there now."""
    console: Console


class SearchSession:
    """Runs the trials that the study lacks, then the repeats, and names and packages the best."""

    def __init__(self, spec: SessionSpec) -> None:
        self.spec = spec
        self.config, self.store, self.plan, self.record = spec.config, spec.store, spec.plan, spec.record
        self.study, self.objectives = spec.study, objectives_of(spec.study)
        self.meter = Meter(
            self.record["sessions"], concurrent=self.plan.concurrent, gpus=self.plan.gpus_held, price=spec.price
        )
        self.heartbeat = Heartbeat(self.store, self.record, self.meter)
        self.said: set[str] = set()
        """Remarks that have been logged, which are not repeated."""
        self.concurrent, self.gpus = self.plan.concurrent, self.plan.gpus_held
        self._changed: float | None = None

    def run(self) -> tuple[pd.DataFrame, tuple[Path, ...]]:
        """The leaderboard, and the folders of the best students. Raises UserError."""
        self.record.pop(END, None)  # of an earlier session
        self.heartbeat.note(**{FINISHED: False})
        with self.heartbeat:
            result = self._run()
        self.heartbeat.note(**{FINISHED: True})
        self.store.saved(True)
        return result

    def _run(self) -> tuple[pd.DataFrame, tuple[Path, ...]]:
        self._log(f"if anything ends this search: {resume_command(self.store.address, self.store.own)}")
        for line in remarks(self.config, self.spec.space, self.study):
            self._log(line)
        for point in self.spec.space.first_points():
            self.study.enqueue_trial(point, skip_if_exists=True)
        self._trials(self.study, self.config.search.trials)
        again = self._repeats()
        if again is not None:
            wanted = len(again.trials) if self.config.search.repeats > 1 else len(own_rows(again))
            self._trials(again, wanted, repeats=True)
        table = leaderboard(self.study, self.objectives, repeats=again)
        write_leaderboard(table, self.store.out)
        return table, package_best(table, self.study, self.config, self.spec.pool, self.store)

    def _trials(self, study: optuna.Study, wanted: int, *, repeats: bool = False) -> None:
        """Runs what the study lacks of its `wanted` trials. Target, plateau and scheduler do not apply to `repeats`."""
        config, meter = self.config, self.meter
        budget = replace(Budget.of(config.search), trials=0)  # AskTell counts them
        limits = Limits(budget.of_repeats if repeats else budget, study, self.objectives, meter)

        def left() -> float | None:
            no_more = repeats or limits.decision.action == NO_MORE_TRIALS
            again = study if repeats else None
            estimate = Estimate.of(config, concurrent=max(1, self.concurrent), gpus=self.gpus, times=self.spec.times)
            return estimate.update(self.study, again, no_more_trials=no_more, most=self._budget_left())

        progress = SearchProgress(
            self.spec.console,
            self.objectives,
            epochs=config.train.epochs,
            wanted=wanted,
            spent=meter.spent.seconds,
            left=left,
        )
        progress.read(study)
        trackers = make_trackers(config.search.trackers, self.spec.name, self.store.out, self._log)
        observers = [Background("the progress display", lambda: progress, self._log), *trackers]
        ask_tell = AskTell(
            study,
            StudySpec(
                self.spec.space,
                self.objectives,
                epochs=config.train.epochs,
                trials=wanted,
                folder=self.store.trials.address,
            ),
            pruner=NopPruner() if repeats else make_pruner(config),
            sampler_of=None if repeats else self._sampler_of(study),
            saved=self.heartbeat.save,
            callbacks=[self.spec.pool.places(), *observers],
            exhausted=lambda: self._exhausted(study, limits),
            recall=lambda label, overrides: TrialCheckpoint.read(self.store.trials, label, overrides).result(),
        )
        if not ask_tell.expected:
            if not repeats:
                self._log(f"the search has its {wanted} trials already: nothing is left to train")
            close(observers)
            return
        Guard("the live table", self._log)(progress.show, None)
        try:
            if limits.check().action != STOP:
                self._tune(ask_tell, limits, "repeats" if repeats else "session")
            ask_tell.close()
            progress.last = False  # the leaderboard follows
        finally:
            close(observers)
        if limits.decision.reason:
            self.heartbeat.note(**{END: limits.decision.reason})
            self._log(limits.decision.reason)

    def _sampler_of(self, study: optuna.Study) -> Callable[[int], BaseSampler]:
        """The sampler of each trial, by its number."""
        imported = [row for row in study.get_trials(deepcopy=False) if IMPORTED in row.user_attrs]
        return lambda number: make_sampler(self.config, self.spec.space, self.objectives, imported, number=number)

    def _exhausted(self, study: optuna.Study, limits: Limits) -> bool:
        if limits.check().action != GO_ON:
            return True
        return study is self.study and exhausted(self.config, self.spec.space, study)

    def _tune(self, ask_tell: AskTell, limits: Limits, kind: str) -> None:
        from ray import tune
        from ray.tune.logger import JsonLoggerCallback

        from singer_ray.search.driver.tune_adapters import (
            Failure,
            LimitStopper,
            Recoveries,
            StudyScheduler,
            StudySearcher,
        )
        from singer_ray.search.workers.trainable import DistillationTrial

        keep_keys_at_home()
        failure, pool = Failure(), self.spec.pool

        def ended() -> bool:
            # Tune asks often, and in the thread that calls AskTell.
            failure.guard(lambda: ask_tell.placed(*pool.placed), None)
            self._follow(pool)
            over = failure.error is not None or limits.check().action == STOP
            if over:
                pool.interrupt()
            return over

        name = f"{kind}-{len(self.record['sessions'])}"
        if (self.store.out / TUNE / name).exists():  # Tune's records hold pickles: none but its own are read
            name = f"{name}-{uuid.uuid4().hex[:8]}"

        def most() -> int:
            # One ahead: the next trial's actor starts up while its host still trains another trial.
            return max(1, pool.open()) + 1

        tuner = tune.Tuner(
            DistillationTrial,
            param_space={
                "registry": pool.registry_name,
                "epochs": ask_tell.spec.epochs,
                "experiment": self.spec.name,
            },
            tune_config=tune.TuneConfig(
                search_alg=StudySearcher(ask_tell, failure, most),
                scheduler=StudyScheduler(ask_tell, failure, self._say_once),
                num_samples=ask_tell.expected,
                max_concurrent_trials=ask_tell.expected,  # the searcher counts, by what the cluster has at the time
                trial_name_creator=lambda trial: trial.config["label"],
                trial_dirname_creator=lambda trial: trial.config["label"],
            ),
            run_config=tune.RunConfig(
                # Ray's own record, a folder for each session; what a resume reads is the study and the checkpoints.
                name=name,
                storage_path=str((self.store.out / TUNE).absolute()),
                verbose=0,
                callbacks=[JsonLoggerCallback(), Recoveries(self._log)],
                stop=LimitStopper(ended),
                failure_config=tune.FailureConfig(max_failures=self.config.search.max_failures),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        )
        try:
            tuner.fit()
        except tune.TuneError as error:  # a traceback as text, within another error that knows Ray's ways to go on
            cause = str(error.__cause__ or error).strip().splitlines()[-1]
            raise failure.error or UserError(f"Ray Tune stopped: {cause}. {self.store.go_on}") from error
        if failure.error is not None:
            raise failure.error

    def _follow(self, pool: HostPool) -> None:
        """Takes note of machines that have joined or left."""
        now = pool.size()
        if now == self.concurrent:
            self._changed = None
            return
        self._changed = self._changed or time.monotonic()
        if time.monotonic() - self._changed < STEADY:  # a host that died, and is back in a moment
            return
        self.concurrent, self.gpus = now, self.plan.gpus_of(now)
        self.meter.hold(concurrent=now, gpus=self.gpus)
        self._log(f"{now} trial{'s' * (now != 1)} at a time from now on, on {ray_cluster.describe()}")

    def _repeats(self) -> optuna.Study | None:
        """The study of the leading trials' further seeds; None without repeats.

        As long as there is a budget, every seed is asked for. What there is counts also without: it decides who wins.
        """
        search, study, storage = self.config.search, self.study, self.spec.storage
        name = f"{study.study_name}{REPEATS}"
        known = name in [summary.study_name for summary in optuna.get_all_study_summaries(storage)]
        ask_tell = search.repeats > 1 and self._budget_left() > 0
        if not known and not ask_tell:
            return None
        again = load_study(storage, name) if known else create_study(storage, name, self.objectives)
        again.sampler = optuna.samplers.RandomSampler(seed=self.config.seed)  # draws nothing: every value is given
        if ask_tell:
            self._ask_for_seeds(again)
        return again

    def _ask_for_seeds(self, again: optuna.Study) -> None:
        search, study = self.config.search, self.study
        there = {(row.user_attrs.get(REPEAT_OF), row.user_attrs.get(SEED)) for row in again.get_trials(deepcopy=False)}
        rows = {row.number: row for row in own_rows(study)}
        for label in chosen(leaderboard(study, self.objectives)).head(search.repeat_top)["id"]:
            number = int(label)
            for seed in range(self.config.seed + 1, self.config.seed + search.repeats):
                if (number, seed) not in there:
                    again.enqueue_trial(rows[number].params, user_attrs={REPEAT_OF: number, SEED: seed})

    def _budget_left(self) -> float:
        """Seconds until time, GPU-hours or money run out; inf without such a limit."""
        dollars = self.meter.price.per_hour if self.meter.price else None
        spent = self.meter.tick()
        return Budget.of(self.config.search).seconds_left(spent, gpus=self.gpus, dollars_per_hour=dollars)

    def _say_once(self, line: str) -> None:
        if line not in self.said:
            self.said.add(line)
            self._log(line)

    def _log(self, line: str) -> None:
        log(self.spec.console, line)
