"""What follows training and searching: the report; of a search also the copy of its results, and publishing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from singer_ray.console.wording import command
from singer_ray.distillation import Distilled
from singer_ray.errors import UserError, printable
from singer_ray.layout import BEST, LEADERBOARD, LEADERBOARD_CSV, REPORT
from singer_ray.storage import Folder

if TYPE_CHECKING:
    from singer_ray.search.driver.searched import Searched

RESULTS = (REPORT, LEADERBOARD, LEADERBOARD_CSV)


def finalize_search(done: Searched, log: Callable[[str], None]) -> Path | None:
    """Writes the report, copies the results to the shared folder, publishes to `export.to`; returns the report's path.

    The search itself is safe by now, so a report that fails is logged and None is returned. Raises UserError when
    publishing fails.
    """
    report: Path | None = None
    try:
        from singer_ray.reporting.page.search_page import build_report  # scikit-learn, which a single run need not load

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


def finalize_run(done: Distilled, log: Callable[[str], None]) -> Path | None:
    """Writes the report of a run and returns its path. The run itself is safe by now: a report that fails is logged."""
    try:
        from singer_ray.reporting.page.run_page import build_run_report

        return build_run_report(done.out)
    except Exception as error:
        log(f"no report: {type(error).__name__}: {printable(error)} (again: {command('report', done.out)})")
        return None


def _deliver(done: Searched, log: Callable[[str], None]) -> None:
    from singer_ray.publishing.delivery import deliver
    from singer_ray.publishing.experiment import Experiment
    from singer_ray.publishing.packages.store import Store
    from singer_ray.publishing.selection import Selection

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
