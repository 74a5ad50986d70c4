"""Searches for the best student with Ray Tune and Optuna, and exports the best ones.

    python -m singer_ray.tune --trials 12 --out runs/search
    python -m singer_ray.tune --preset imagenet-vitl-vitt --space my_space.yaml --storage s3://bucket/searches --export s3://bucket/students

OUT gets leaderboard.parquet and .csv (one row a trial), study.journal (Optuna), and best/<rank>-<trial>/, folders that
timm.create_model("local-dir:OUT/best/...", pretrained=True) loads.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from singer_ray.cli import Command, check_out, console, default_out, prepare_out, print_plan, run_command
from singer_ray.config import Config

REFINER = "method.refiner"


@dataclass(frozen=True)
class TuneFlags:
    """Flags of this command."""

    out: Path | None = None
    """Folder for the result; by default runs/tune-DATE-TIME."""
    overwrite: bool = False
    """Replace an earlier result in --out."""
    dry_run: bool = False
    """Print the resolved configuration and what would run, and stop."""


def main(config: Config, flags: TuneFlags) -> None:
    """Searches, prints the leaderboard, writes OUT and delivers the best students."""
    from singer_ray.search.space import load_space

    out = flags.out or default_out("tune")
    space = load_space(config.search.space, config)
    if flags.dry_run:
        limit = f" or {config.search.time_budget:g} s" if config.search.time_budget else ""
        print_plan(config, [
            f"would search {', '.join(space.parameters)}",
            f"by {', '.join(config.search.objectives) or 'the best metric that the data can give'}",
            f"{config.search.trials} trials{limit}, into {out}",
        ])  # fmt: skip
        return
    check_out(out, overwrite=flags.overwrite)
    from singer_ray.search.experiment import run_search
    from singer_ray.search.leaderboard import as_rich_table, winners

    done = run_search(config, out, prepare=lambda: prepare_out(out, overwrite=flags.overwrite), console=console)
    console.print(
        as_rich_table(done.leaderboard, done.metric, title=f"{len(done.leaderboard)} trials by {done.metric}")
    )
    if REFINER in done.leaderboard.columns:
        best_of_each = winners(done.leaderboard, REFINER)
        console.print(as_rich_table(best_of_each, done.metric, title="The best trial of each refiner"))
    if not done.best:
        console.print(f"No trial came far enough to export a student; {out}/leaderboard.csv says why.")
        return
    best = done.best[0]
    console.print(
        f"Wrote {out}. Best student: {best} (timm.create_model('local-dir:{best}', pretrained=True))", highlight=False
    )
    console.print(f"Train it again:  python -m singer_ray.train --preset {best}/config.yaml", highlight=False)
    console.print(
        f"Look further:    tensorboard --logdir {out}/tune   (curves)   {out}/leaderboard.csv   (all trials)",
        highlight=False,
    )


COMMAND = Command(
    "tune", __doc__, TuneFlags, ("trials", "time-budget", "concurrent", "space", "storage", "export", "workers")
)

if __name__ == "__main__":
    sys.exit(run_command(COMMAND, main))
