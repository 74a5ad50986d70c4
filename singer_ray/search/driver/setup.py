"""Everything around a session of a search: Ray and its hosts, the forecast, the folder, the study."""

from __future__ import annotations

import contextlib
import os
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import yaml
from rich.console import Console

from singer_ray.console.runlog import log_into
from singer_ray.console.terminal import lasting, log, terminated_as_interrupted
from singer_ray.errors import UserError
from singer_ray.layout import CONFIG, SPACE
from singer_ray.nodes import ray_cluster
from singer_ray.nodes.prices import NodePrices, Price, require_price
from singer_ray.search.driver.searched import Searched
from singer_ray.search.driver.session import SearchSession, SessionSpec
from singer_ray.search.space.space import SearchSpace
from singer_ray.search.state.resume_rules import own_inputs
from singer_ray.search.state.store import REMARKS, SearchStore
from singer_ray.search.state.warm_start import earlier_study, import_trials
from singer_ray.search.strategy.stopping import Budget
from singer_ray.search.study.objectives import Objectives
from singer_ray.search.study.opening import create_study, load_study, remove_study, storage_of
from singer_ray.search.study.schema import EPOCHS, SEARCH
from singer_ray.search.watch.eta import Estimate
from singer_ray.search.workers.resources import ResourcePlan
from singer_ray.storage import STUDY_URL, Folder, without_password
from singer_ray.tracking.trackers import check_trackers

if TYPE_CHECKING:
    from singer_ray.config import Config
    from singer_ray.search.workers.pool import HostPool
    from singer_ray.training.timing import StepTimes


class SearchSetup:
    """What surrounds a session of a search: hosts, forecast, folder and study before it, errors in words after it."""

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
            from singer_ray.publishing.packages.store import Store

            check_formats(export)
            Store(export.to, settings=export)
        with self._hosts() as (store, plan, pool):
            search = self.config.search
            objectives = Objectives.of(search.objectives, search.stop_metric, pool.wait(self._log))
            earlier = earlier_study(self.config, self.space, objectives, self._log)
            self._check_corners(pool)
            remarks = pool.ask("remarks")
            for line in (*remarks, *self._costs()):
                self._log(f"note: {line}")
            self._forecast(plan, pool)
            with store.driving():
                storage = self._emptied(store) if overwrite else self._empty(store)
                search_id = uuid.uuid4().hex
                study = create_study(
                    storage, self.out.name, objectives, **{EPOCHS: self.config.train.epochs, SEARCH: search_id}
                )
                self.record = {
                    "id": search_id,
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

        from singer_ray.search.workers.pool import HostPool

        _quiet()
        with ray_cluster.connected(self.name), terminated_as_interrupted(), contextlib.ExitStack() as stack:
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
            pool = HostPool(self.config, self.inputs, store.trials, plan.share, count=plan.concurrent, plan=plan)
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
        session = SearchSession(
            SessionSpec(
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
        )
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

    def _costs(self) -> list[str]:
        """What trials may cost beyond one pass of the teacher for each image, in lines."""
        reached = (self.config, *self.space.corners(self.config))
        return list(dict.fromkeys(line for config in reached for line in config.method.costs))

    def _check_corners(self, pool: HostPool) -> None:
        corners = [corner.model_dump() for corner in self.space.corners(self.config)]
        error = pool.ask("check", corners)
        if error:
            raise UserError(f"The search space reaches what cannot be built: {error}")

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
        self._log(estimate.forecast(self._price()))

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


def _dashboard() -> str:
    import ray

    url = ray._private.worker.get_dashboard_url()
    return f", dashboard http://{url}" if url else ""
