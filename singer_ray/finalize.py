"""What follows a search: its report, the results beside its copy, and the delivery of the best students."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from singer_ray.distillation import Distilled
from singer_ray.errors import UserError, printable
from singer_ray.reporting.page import build_report
from singer_ray.reporting.run_page import build_run_report
from singer_ray.search.driver.searched import Searched
from singer_ray.search.driver.winners import BEST
from singer_ray.storage import Folder
from singer_ray.wording import command

RESULTS = ("report.html", "leaderboard.parquet", "leaderboard.csv")


def conclude(done: Searched, log: Callable[[str], None]) -> Path | None:
    """Writes the report, brings results to the search's copy, and delivers to `export.to`. Returns the report.

    The search itself is safe by now: a report that fails is said, not raised. Raises UserError when the delivery fails.
    """
    report: Path | None = None
    try:
        report = build_report(done.out)
    except Exception as error:
        log(f"no report: {type(error).__name__}: {printable(error)} (again: {command('report', done.out)})")
    if done.store.remote is not None:
        here = Folder(str(done.out), setting="--out")
        best = here.names(BEST)
        for name in done.store.remote.names(BEST):  # of an earlier session, whose best were others
            done.store.remote.delete(name)
        for name in (*RESULTS, *best):
            content = here.read(name)
            if content is not None:
                done.store.remote.write(name, content)
    if done.config.export.to is not None:
        _deliver(done, log)
    return report


def conclude_run(done: Distilled, log: Callable[[str], None]) -> Path | None:
    """Writes the report of a run. The run itself is safe by now: a report that fails is said, not raised."""
    try:
        return build_run_report(done.out)
    except Exception as error:
        log(f"no report: {type(error).__name__}: {printable(error)} (again: {command('report', done.out)})")
        return None


def _deliver(done: Searched, log: Callable[[str], None]) -> None:
    from singer_ray.publishing.delivery import deliver
    from singer_ray.publishing.experiment import Experiment, Selection
    from singer_ray.publishing.store import Store

    export = done.config.export
    assert export.to is not None
    trials = [folder.name.partition("-")[2] for folder in done.best]
    if not trials:
        return
    try:
        store = Store(export.to, settings=export)
        deliver(Experiment(str(done.out)), store, export, Selection(trials=trials), log=log)
    except UserError as error:
        raise UserError(f"{error} The search is safe; deliver it later: {command('export', done.out)}") from error
