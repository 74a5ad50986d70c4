"""Writes the report of a search: one page that opens offline, in any browser.

    python -m singer_ray.report runs/search
    python -m singer_ray.report runs/search --out search.html

FOLDER is the --out of singer_ray.tune; the search may still run. The page holds the best configuration and how to use
it, the leaderboard, the Pareto front, learning curves, what each parameter did, cost, and what the search cannot show.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from singer_ray.cli import Command, console, run_command
from singer_ray.config import Config
from singer_ray.errors import UserError
from singer_ray.terminal import say


@dataclass(frozen=True)
class ReportFlags:
    """Flags of this command."""

    folder: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")] = ()
    """Folder of the search."""
    out: Path | None = None
    """File for the report; by default FOLDER/report.html."""
    dry_run: bool = False
    """Print what would be read and written, and stop."""


def main(config: Config, flags: ReportFlags) -> None:
    """Writes the report and says where it is."""
    if len(flags.folder) != 1:
        given = f" {len(flags.folder)} are given: {' '.join(map(str, flags.folder))}." if flags.folder else ""
        raise UserError(
            f"one folder of a search is needed.{given} Give the --out of singer_ray.tune, such as runs/search."
        )
    folder = flags.folder[0]
    from singer_ray.reporting.page import REPORT, build_report

    if flags.dry_run:
        say(console, f"would read {folder} and write {flags.out or folder / REPORT}")
        return
    written = build_report(folder, flags.out)
    size = written.stat().st_size / 2**20
    say(console, f"Wrote {written} ({size:.1f} MiB)")


COMMAND = Command("report", __doc__, ReportFlags, positional="folder")

if __name__ == "__main__":
    sys.exit(run_command(COMMAND, main))
