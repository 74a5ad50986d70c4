"""A search from start to finish: hosts, trials, leaderboard, students."""

from __future__ import annotations

import math
import os
import shutil
import uuid
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pandas as pd
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from rich.console import Console

from singer_ray import ray_cluster
from singer_ray.errors import UserError
from singer_ray.search.leaderboard import leaderboard, write_leaderboard
from singer_ray.search.objectives import Objectives
from singer_ray.search.optuna_search import COMPLETE, FAIL, TruthfulOptunaSearch
from singer_ray.search.space import SearchSpace, load_space

if TYPE_CHECKING:
    from ray.tune import Result, ResultGrid

    from singer_ray.config import Config
    from singer_ray.search.host import HostPool

STUDY = "study.journal"


@dataclass(frozen=True)
class Searched:
    """A finished search."""

    out: Path
    """Its folder: leaderboard.parquet and .csv, study.journal, best/."""
    leaderboard: pd.DataFrame
    """One row a trial, the best first."""
    metric: str
    """What was optimised."""
    best: tuple[Path, ...]
    """The folders of the best students, the best first."""


def run_search(
    config: Config,
    out: Path,
    *,
    space: str | Mapping[str, Any] | None = None,
    inputs: Any = None,
    prepare: Callable[[], object] = lambda: None,
    console: Console | None = None,
) -> Searched:
    """Searches by `config.search` and fills OUT. `prepare` readies the folder, once everything has proved buildable.

    Raises UserError for what the user can mend, before the first trial wherever that is possible.
    """
    console = console or Console()
    searched = load_space(space if space is not None else config.search.space, config)
    if config.train.workers > 1:
        raise UserError(
            f"--workers {config.train.workers}: a search runs one worker a trial, and several trials at a time. "
            "Use --concurrent, and --workers with singer_ray.train."
        )
    store = _store(config)
    _quiet()
    with ray_cluster.connected():
        plan = _Placement.of(config)
        console.print(f"{plan.concurrent} trials at a time on {ray_cluster.describe()}{_dashboard()}", highlight=False)
        storage = ray_cluster.storage(config.train.storage, out, "tune")
        pool = plan.hosts(config, inputs)
        try:
            metric, mode = _metric(config, pool.wait(lambda line: console.print(line, highlight=False)))
            _check_corners(pool, searched, config)
            prepare()
            out.mkdir(parents=True, exist_ok=True)
            (out / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
            (out / "space.yaml").write_text(
                yaml.safe_dump({n: p.model_dump(mode="json") for n, p in searched.parameters.items()}, sort_keys=False)
            )
            results = _tune(config, searched, pool, plan.concurrent, storage, out, metric, mode, console)
            table = _table(results, config, metric, mode)
            write_leaderboard(table, out)
            best = _package_best(table, results, config, pool, out)
        finally:
            pool.stop()
    for folder in best:
        if store is not None:
            address = store.put(folder, f"{out.name}/students/{folder.name}")
            console.print(f"exported {address}", highlight=False)
    return Searched(out, table, metric, best)


@dataclass(frozen=True)
class _Placement:
    """How many trials run at a time, and what the host of each holds."""

    concurrent: int
    cpus: float
    gpus: float

    @classmethod
    def of(cls, config: Config) -> _Placement:
        search, there = config.search, ray_cluster.resources()
        gpus = search.gpus_per_trial
        if gpus is None:
            gpus = 1.0 if ray_cluster.has_gpus() and config.train.device != "cpu" else 0.0
        room = [there.get(name, 0) / each for name, each in (("CPU", search.cpus_per_trial), ("GPU", gpus)) if each]
        most = math.floor(min(room) + 1e-9)
        wanted = search.concurrent or min(most, search.trials)
        if wanted > most or not wanted:
            raise UserError(
                f"{max(wanted, 1)} trials at a time need {search.cpus_per_trial:g} CPUs and {gpus:g} GPUs each; this "
                f"Ray cluster can never offer more than {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs. "
                "Lower --concurrent, search.cpus_per_trial or search.gpus_per_trial, or connect to a larger cluster."
            )
        return cls(wanted, search.cpus_per_trial, gpus)

    def hosts(self, config: Config, inputs: Any) -> HostPool:
        from singer_ray.search.host import HostPool

        prefix = f"search-{uuid.uuid4().hex[:8]}"
        return HostPool(config, inputs, self.concurrent, cpus=self.cpus, gpus=self.gpus, prefix=prefix)


def _quiet() -> None:
    # Trials that cannot go on report why and no metric: that is ours to judge, not an error of the reporting.
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # its own tables; ours is SearchProgress
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def _dashboard() -> str:
    import ray

    url = ray._private.worker.get_dashboard_url()
    return f", dashboard http://{url}" if url else ""


def _store(config: Config) -> Any:
    if config.export.to is None:
        return None
    from singer_ray.publishing.store import Store

    return Store(config.export.to, config.export.endpoint)


def _metric(config: Config, reported: list[str]) -> tuple[str, str]:
    objectives = Objectives.of(config.search.objectives, config.search.stop_metric, reported)
    return objectives.first, objectives.modes[0]


def _check_corners(pool: HostPool, space: SearchSpace, config: Config) -> None:
    import ray

    corners = [corner.model_dump() for corner in space.corners(config)]
    fault = ray.get(pool.any().check.remote(corners))
    if fault:
        raise UserError(f"The search space reaches what cannot be built: {fault}")


def _tune(
    config: Config, space: SearchSpace, pool: HostPool, concurrent: int, storage: tuple[str, str], out: Path,
    metric: str, mode: str, console: Console,
) -> ResultGrid:  # fmt: skip
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    from singer_ray.search.progress import SearchProgress
    from singer_ray.search.trial import DistillationTrial

    search, epochs = config.search, config.train.epochs
    searcher = TruthfulOptunaSearch(
        space=space, metric=metric, mode=mode, epochs=epochs,
        sampler=optuna.samplers.TPESampler(
            seed=config.seed, multivariate=True, group=space.conditional, n_startup_trials=search.startup_trials
        ),
        points_to_evaluate=space.branches() or None, study_name=out.name,
        storage=JournalStorage(JournalFileBackend(str(out / STUDY))),
    )  # fmt: skip
    progress = SearchProgress(
        console, metric=metric, mode=mode, epochs=epochs, trials=search.trials,
        on_end=lambda trial_id: pool.registry.release.remote(trial_id),
    )  # fmt: skip
    tuner = tune.Tuner(
        DistillationTrial,
        param_space={"registry": pool.registry_name, "epochs": epochs},
        tune_config=tune.TuneConfig(
            metric=metric, mode=mode, search_alg=searcher, num_samples=search.trials, max_concurrent_trials=concurrent,
            scheduler=ASHAScheduler(
                time_attr="epoch", max_t=epochs, grace_period=min(search.grace_epochs, epochs),
                reduction_factor=search.reduction_factor,
            ),
            time_budget_s=search.time_budget or None,
            trial_name_creator=lambda trial: f"{trial.config['number']:03d}-{trial.trial_id}",
            trial_dirname_creator=lambda trial: f"{trial.config['number']:03d}-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=storage[1], storage_path=storage[0], verbose=0, callbacks=[progress],
            failure_config=tune.FailureConfig(max_failures=search.max_failures),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=1),
        ),
    )  # fmt: skip
    try:
        results = tuner.fit()
    finally:
        progress.on_experiment_end([])
    ended = [results[i] for i in range(len(results))]
    searcher.close({str((r.metrics or {}).get("trial_id")): (r.metrics, r.error is not None) for r in ended})
    return results


def _started(results: ResultGrid) -> list[Result]:
    """The trials that got as far as having parameters."""
    found = [results[i] for i in range(len(results))]
    return [result for result in found if (result.config or {}).get("parameters")]


def _table(results: ResultGrid, config: Config, metric: str, mode: str) -> pd.DataFrame:
    trials = [(r.config or {}, r.metrics or {}, r.error is not None) for r in _started(results)]
    return leaderboard(trials, metric=metric, mode=mode, epochs=config.train.epochs)


def _package_best(
    table: pd.DataFrame, results: ResultGrid, config: Config, pool: HostPool, out: Path
) -> tuple[Path, ...]:
    """The best students as `best/<rank>-<id>/`: of finished trials, or of stopped ones where none finished."""
    import ray

    from singer_ray.publishing.package import InputSpec, write_student
    from singer_ray.publishing.result import build_result
    from singer_ray.search.trial import CHECKPOINT
    from singer_ray.training import checkpoint
    from singer_ray.training.member import student_of

    by_number = {f"{(r.config or {})['number']:03d}": r for r in _started(results)}
    usable = table[table["state"] != FAIL]
    chosen = usable[usable["state"] == COMPLETE] if (usable["state"] == COMPLETE).any() else usable
    folders = []
    for row in chosen.head(config.export.top).to_dict("records"):
        result = by_number[str(row["id"])]
        if result.checkpoint is None or result.metrics is None:
            continue
        with result.checkpoint.as_directory() as folder:
            content = (Path(folder) / CHECKPOINT).read_bytes()
        parameters = (result.config or {})["parameters"]
        metrics = {k: v for k, v in result.metrics.items() if k.count("/") and isinstance(v, (int, float))}
        metrics |= {"epoch": result.metrics["epoch"], "images_per_second": result.metrics.get("images_per_second", 0.0)}
        if row["state"] != COMPLETE:
            metrics |= ray.get(pool.any().final_metrics.remote(parameters, content))
        own = config.override(parameters)
        model, scaling = student_of(own, checkpoint.from_bytes(content))
        target = out / "best" / f"{row['rank']}-{row['id']}"
        shutil.rmtree(target, ignore_errors=True)
        write_student(
            target, model, InputSpec(own.data.image_size, own.data.crop_pct, scaling),
            build_result(own.model_dump(mode="json"), metrics, float(row["seconds"])),
        )  # fmt: skip
        folders.append(target)
    return tuple(folders)
