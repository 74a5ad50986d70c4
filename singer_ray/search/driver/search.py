"""A search from start to finish, and from wherever it was cut off: hosts, trials, leaderboard, students."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pandas as pd
import yaml
from rich.console import Console

from singer_ray.config import field_names, load_preset
from singer_ray.config.given import settle
from singer_ray.errors import UserError
from singer_ray.nodes import ray_cluster
from singer_ray.nodes.prices import NodePrices, Price, require_price
from singer_ray.printing import log_into
from singer_ray.search.driver.session import Session, Setting
from singer_ray.search.space.dead import space_remarks
from singer_ray.search.space.space import SearchSpace, load_space
from singer_ray.search.state.description import RECORD, description
from singer_ray.search.state.locate import bring_search, checkpoint_storage
from singer_ray.search.state.resume_rules import check_changes, own_inputs, require_inputs
from singer_ray.search.state.store import CONFIG, REMARKS, SPACE, SearchStore
from singer_ray.search.state.warm_start import earlier_study, import_trials
from singer_ray.search.strategy.samplers import check_sampler
from singer_ray.search.strategy.stopping import Budget
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.opening import create_study, load_study, remove_study, require_own, storage_of
from singer_ray.search.study.schema import EPOCHS, SEARCH
from singer_ray.search.watch.eta import Estimate
from singer_ray.search.workers.resources import ResourcePlan
from singer_ray.storage import STUDY_URL, Folder, without_password
from singer_ray.storage.address import absolute, own_name
from singer_ray.terminal import Terminal, lasting, log
from singer_ray.tracking.trackers import check_trackers

if TYPE_CHECKING:
    from singer_ray.config import Config
    from singer_ray.search.workers.pool import HostPool
    from singer_ray.training.timing import StepTimes


@dataclass(frozen=True)
class Searched:
    """A finished search."""

    out: Path
    """Its folder: leaderboard.parquet and .csv, study.journal, best/."""
    leaderboard: pd.DataFrame
    """One row a trial, the best first."""
    objectives: Objectives
    """What was optimised."""
    best: tuple[Path, ...]
    """The folders of the best students, the best first."""
    config: Config
    """What the search was run with."""
    store: SearchStore
    """Where its state is."""

    @property
    def metric(self) -> str:
        """The first objective."""
        return self.objectives.first

    def __repr__(self) -> str:
        best = f", the best {self.best[0].name}" if self.best else ""
        return f"Searched({str(self.out)!r}: {len(self.leaderboard)} trials by {self.objectives}{best})"


def run_search(
    config: Config,
    out: Path,
    *,
    space: str | Mapping[str, Any] | None = None,
    given: Sequence[str] = (),
    inputs: Any = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> Searched:
    """Searches by `config.search` and fills OUT.

    `given` names the settings that were set by hand, which win over those that the space fixes. `overwrite` deletes
    what
    an earlier search left in OUT and its copy, once everything has proved buildable and no process drives it. Raises
    UserError for what the user can mend, before the first trial wherever that is possible.
    """
    searched = load_space(space if space is not None else config.search.space, config, given)
    config = settle(searched.apply(config, given), {*given, *searched.fixed}, distils=inputs is None)
    check_sampler(config, searched, config.search.objectives)
    said = console or Console()
    for line in space_remarks(searched, config, given):
        said.print(line, highlight=False, markup=False)
    if config.search.study is not None:
        storage_of(config.search.study, out)  # whether it can be reached
    config, out = _meant_from_anywhere(config), _named(out)
    return _Search(config, searched, out, inputs, console or Terminal()).begin(overwrite=overwrite)


def resume_search(
    address: str,
    *,
    out: Path | None = None,
    endpoint: str | None = None,
    changes: Mapping[str, Any] | None = None,
    inputs: Any = None,
    console: Console | None = None,
) -> Searched:
    """Goes on with the search at `address` (its folder, or STORAGE/NAME), whatever ended it.

    Finished trials are kept; trials that ran go on from their checkpoints under their numbers. `changes` may set what
    `CHANGEABLE` names. Raises UserError when there is no search, another process drives it, or a change would make
    earlier trials incomparable.
    """
    folder = bring_search(address, endpoint, out)
    config = load_preset(str(folder / CONFIG))
    check_changes(changes or {})
    require_inputs(address, config, inputs)
    config = config.override({n: absolute(v) if n == "export.to" and v else v for n, v in (changes or {}).items()})
    space = load_space(str(folder / SPACE), config, field_names())  # what it fixes is in the configuration by now
    name = description((folder / RECORD).read_bytes(), str(folder / RECORD))["name"]
    require_own(load_study(storage_of(config.search.study, folder, "read"), name), folder)
    storage = checkpoint_storage(address, folder, config)
    if storage is not None:
        storage, _, name = storage.rpartition("/")
        config = config.override({"train.storage": storage})
    return _Search(config, space, folder, inputs, console or Terminal(), name=name).resume()


def _meant_from_anywhere(config: Config) -> Config:
    """With the places that the search writes to as they are from any folder: a resume may be typed in another one."""
    given = {name: config.value(name) for name in ("train.storage", "search.study", "export.to")}
    return config.override({name: absolute(place) for name, place in given.items() if place is not None})


def _named(out: Path) -> Path:
    """OUT by a path that ends in a name: the search has its own, and its folder below --storage."""
    return out if own_name(out) == out.name else Path(os.path.abspath(out))


class _Search:
    """One session of a search."""

    def __init__(
        self, config: Config, space: SearchSpace, out: Path, inputs: Any, console: Console, *, name: str | None = None
    ) -> None:
        self.config, self.space, self.out, self.inputs = config, space, out, inputs
        self.console = lasting(console)
        """A search goes on when its terminal is closed."""
        self.name = name or out.name
        """Of its folder below --storage."""
        self.record: dict[str, Any] = {}
        self.times: StepTimes | None = None
        self.prices = NodePrices.of(config.search.price_per_node_hour)

    def begin(self, *, overwrite: bool) -> Searched:
        """From nothing."""
        check_trackers(self.config.search.trackers)
        export = self.config.export
        if export.to is not None:  # what cannot be used is refused before the first trial
            from singer_ray.publishing.delivery import check_formats
            from singer_ray.publishing.store import Store

            check_formats(export)
            Store(export.to, settings=export)
        with self._hosts() as (store, plan, pool):
            search = self.config.search
            objectives = Objectives.of(search.objectives, search.stop_metric, pool.wait(self._log))
            earlier = earlier_study(self.config, self.space, objectives, self._log)
            self._check_corners(pool)
            remarks = pool.ask("remarks")
            for line in remarks:
                self._log(f"note: {line}")
            self._forecast(plan, pool)
            with store.driving():
                storage = self._emptied(store) if overwrite else self._empty(store)
                found = uuid.uuid4().hex
                study = create_study(
                    storage, self.out.name, objectives, **{EPOCHS: self.config.train.epochs, SEARCH: found}
                )
                self.record = {
                    "id": found,
                    "name": self.out.name,
                    "study": self.config.without_passwords().search.study,
                    "objectives": objectives.as_flags(),
                    "stop_metric": objectives.stop_metric,
                    "sessions": [],
                    REMARKS: remarks,
                }
                store.write(CONFIG, self.config.to_yaml().encode())
                store.write(SPACE, yaml.safe_dump(self.space.to_dict(), sort_keys=False).encode())
                if earlier is not None:
                    import_trials(study, earlier, self.space, str(search.warm_start))
                store.write_record(self.record)  # from here on a resume finds a search
                log_into(self.out)
                return self._drive(store, plan, pool, study, storage)

    def resume(self) -> Searched:
        """From what OUT holds."""
        check_trackers(self.config.search.trackers)
        with self._hosts(driving=True) as (store, plan, pool):
            self.record = store.read_record()
            log_into(self.out)
            storage = storage_of(self.config.search.study, self.out, "write")
            study = load_study(storage, self.record["name"])
            self._forget_passwords()
            pool.wait(self._log)
            self._forecast(plan, pool)
            store.write(CONFIG, self.config.to_yaml().encode())
            return self._drive(store, plan, pool, study, storage)

    @contextlib.contextmanager
    def _hosts(self, *, driving: bool = False) -> Iterator[tuple[SearchStore, ResourcePlan, HostPool]]:
        """Ray, and the hosts on their way; with `driving` only where no other process drives the search."""
        from ray.exceptions import RayError

        _quiet()
        with ray_cluster.connected(self.name), _terminated_as_interrupted(), contextlib.ExitStack() as stack:
            shared = ray_cluster.shared_storage(self.config.train.storage, self.out)
            plan = ResourcePlan.of(self.config, self._log, here=shared is None)
            trials = f"{plan.concurrent} trial{'s' * (plan.concurrent > 1)}"
            self._log(f"{trials} at a time on {ray_cluster.describe()}{_dashboard()}")
            remote = None
            if shared:  # NAME may well be a link there, which is the user's own
                remote = Folder(f"{shared}/{self.name}", settings=self.config.export, setting="--storage")
            store = SearchStore(self.out, remote, self._log, own=own_inputs(self.config))
            if driving:
                stack.enter_context(store.driving())
                store.catch_up()
            pool = plan.hosts(self.config, self.inputs, store.trials)
            try:
                yield store, plan, pool
            except KeyboardInterrupt:
                if self.record:
                    self._log(f"interrupted. {store.go_on}")
                raise
            except OSError as error:
                if not self.record:
                    raise
                why = str(error).rstrip(".")
                raise UserError(
                    f"The search stopped: {why}. Free some space or repair the store. {store.go_on}"
                ) from error
            except RayError as error:
                from singer_ray.search.workers.errors import in_words

                raise UserError(
                    f"The search stopped: {in_words(error)}. {store.go_on if self.record else ''}"
                ) from error
            finally:
                pool.stop()

    def _drive(
        self,
        store: SearchStore,
        plan: ResourcePlan,
        pool: HostPool,
        study: optuna.Study,
        storage: optuna.storages.BaseStorage,
    ) -> Searched:
        setting = Setting(
            self.config,
            self.space,
            self.name,
            store,
            plan,
            pool,
            study,
            storage,
            self.record,
            self.times,
            self._price,
            self.console,
        )
        session = Session(setting)
        table, best = session.run()
        return Searched(self.out, table, session.objectives, best, self.config, store)

    def _forget_passwords(self) -> None:
        """An older search kept the password of its study's database in its files: from here on it is not written."""
        study = self.record["study"]
        if study is not None and without_password(study) != study:
            self.record["study"] = without_password(study)
            self._log(f"the password of the study is not kept any more: next time set PGPASSWORD or {STUDY_URL}")

    def _empty(self, store: SearchStore) -> optuna.storages.BaseStorage:
        """Of a new study. Raises UserError when the copy's place is taken."""
        store.refuse_taken()
        return storage_of(self.config.search.study, self.out)

    def _emptied(self, store: SearchStore) -> optuna.storages.BaseStorage:
        """Of a new study, once all of an earlier search is deleted. Raises UserError, with nothing deleted."""
        if self.config.search.study is not None:
            remove_study(storage_of(self.config.search.study, self.out), self.out.name, store.ids())
        store.clear()
        return storage_of(self.config.search.study, self.out)

    def _check_corners(self, pool: HostPool) -> None:
        corners = [corner.model_dump() for corner in self.space.corners(self.config)]
        fault = pool.ask("check", corners)
        if fault:
            raise UserError(f"The search space reaches what cannot be built: {fault}")

    def _price(self) -> Price | None:
        import ray

        return self.prices.total(ray.nodes())

    def _forecast(self, plan: ResourcePlan, pool: HostPool) -> None:
        """Times a few steps on every host at once, as trials will run, and says what the search will take."""
        import ray

        search = self.config.search
        if search.money:
            require_price(self.prices, ray.nodes(), search.money)
        Budget.of(search).require_gpus(plan.gpus_held)
        self.times = pool.timing()
        estimate = Estimate.of(self.config, concurrent=plan.concurrent, gpus=plan.gpus_held, times=self.times)
        self._log(estimate.before(self._price()).text)

    def _log(self, line: str) -> None:
        log(self.console, line)


def _quiet() -> None:
    # Trials that cannot go on report why and no metric: that is ours to judge, not an error of the reporting.
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C leaves the study as it is, for --resume
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "0"  # a traceback for every trial of a machine that was lost
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # its own tables; ours is SearchProgress
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """A polite end (SIGTERM of a scheduler, SIGHUP of a closing terminal) leaves as clean a search as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum: int, frame: Any) -> None:
        raise KeyboardInterrupt

    # nohup ignores SIGHUP, and so it stays.
    polite = [s for s in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in polite}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _dashboard() -> str:
    import ray

    url = ray._private.worker.get_dashboard_url()
    return f", dashboard http://{url}" if url else ""
