"""Writes the report of a search or of one training run: one page that opens offline, in any browser.

    python -m singer_ray.report runs/search
    python -m singer_ray.report runs/vitt
    python -m singer_ray.report runs/search --out search.html

FOLDER is the --out of singer_ray.tune or singer_ray.train, which may still run. Of a search the page holds the best
configuration and how to use it, the leaderboard, the Pareto front, learning curves, what each parameter did, cost, and
what the search cannot show; of a run its curves, scores, artifacts and pictures.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from singer_ray.cli import Command, results, run_command
from singer_ray.config import Config
from singer_ray.console.terminal import log
from singer_ray.errors import UserError
from singer_ray.layout import REPORT


@dataclass(frozen=True)
class ReportFlags:
    """Flags of this command."""

    folder: tuple[Path, ...] = ()
    """Folder of the search or run."""
    out: Path | None = None
    """File for the report; by default FOLDER/report.html."""
    dry_run: bool = False
    """Print what would be read and written, and stop."""


def main(config: Config, flags: ReportFlags) -> None:
    """Writes the report and says where it is."""
    if len(flags.folder) != 1:
        given = f" {len(flags.folder)} are given: {' '.join(map(str, flags.folder))}." if flags.folder else ""
        raise UserError(
            f"one folder is needed.{given} Give the --out of singer_ray.tune or singer_ray.train, such as runs/search."
        )
    folder = flags.folder[0]
    from singer_ray.reporting.page.run_page import build_run_report
    from singer_ray.reporting.page.search_page import build_report
    from singer_ray.reporting.reading.run_result import is_run

    if flags.dry_run:
        if not is_run(folder):
            from singer_ray.reporting.reading.search_reader import read_search

            read_search(folder)
        log(results, f"would read {folder} and write {flags.out or folder / REPORT}")
        return
    written = (build_run_report if is_run(folder) else build_report)(folder, flags.out)
    size = written.stat().st_size / 2**20
    log(results, f"Wrote {written} ({size:.1f} MiB)")


COMMAND = Command("report", __doc__, ReportFlags, positional="folder", metavar="FOLDER")

if __name__ == "__main__":
    sys.exit(run_command(COMMAND, main))
