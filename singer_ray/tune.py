"""Searches for the best student with Ray Tune and Optuna, and exports the best ones.

    python -m singer_ray.tune --trials 12 --out runs/search
    python -m singer_ray.tune --preset imagenet-vitl-vitt --space my_space.yaml --storage s3://bucket/searches --export s3://bucket/students
    python -m singer_ray.tune --resume runs/search          (or s3://bucket/searches/search, on any machine)
    python -m singer_ray.tune --status runs/search

OUT gets leaderboard.parquet and .csv (one row per trial), study.journal (Optuna), and best/<rank>-<trial>/, folders
that timm.create_model("local-dir:OUT/best/...", pretrained=True) loads.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from singer_ray.cli import Command, console, print_plan, results, run_command
from singer_ray.config import Config
from singer_ray.config.given import settle
from singer_ray.config.places import Place
from singer_ray.console.outputs import check_out, default_out
from singer_ray.console.terminal import lasting, log
from singer_ray.console.wording import command
from singer_ray.errors import UserError
from singer_ray.layout import CONFIG, LEADERBOARD_CSV, TENSORBOARD
from singer_ray.storage.address import own_name

if TYPE_CHECKING:
    from rich.console import Console

    from singer_ray.search.driver.searched import Searched
    from singer_ray.search.space.space import SearchSpace

REFINER = "method.refiner"


@dataclass(frozen=True)
class TuneFlags:
    """Flags of this command."""

    out: Path | None = None
    """Folder for the result; by default runs/tune-DATE-TIME."""
    overwrite: bool = False
    """Replace an earlier result in --out."""
    resume: Place | None = None
    """Go on with the search in this folder, or at STORAGE/NAME: finished trials are kept, others continue."""
    status: Place | None = None
    """Show how far the search in this folder, or at STORAGE/NAME, has come, and stop."""
    dry_run: bool = False
    """Check what needs no data, print what would run, and stop."""
    submit: str | None = None
    """Hand the search to the cluster whose dashboard is at this address (http://HEAD:8265), as a job, and follow it.

    With --resume it goes on there: with one in S3, or in a folder of the cluster's head."""
    given: frozenset[str] = frozenset()
    """Settings set on the command line."""
    typed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The options as they were typed, values by plain name."""


def main(config: Config, flags: TuneFlags) -> None:
    """Searches, prints the leaderboard, writes OUT and delivers the best students."""
    asked = [name for name in ("resume", "status", "submit") if getattr(flags, name)]
    if len(asked) > 1 and asked != ["resume", "submit"]:
        raise UserError(f"--{asked[0]} and --{asked[1]} are two commands. Give one.")
    if flags.status:
        from singer_ray.search.watch.status import show_status

        show_status(flags.status, config.export.endpoint, results)
        return
    if flags.resume:
        if flags.overwrite:
            raise UserError("--resume goes on with a search, --overwrite deletes it. Give one.")
        if flags.submit:
            name = flags.resume.rstrip("/").rpartition("/")[2]
            _submit(flags.submit, name, {"resume": flags.resume}, flags.typed)
            return
        from singer_ray.search.driver.search import resume_search

        changes = {name: config.value(name) for name in flags.given}
        _finish(
            resume_search(
                flags.resume, out=flags.out, endpoint=config.export.endpoint, changes=changes, console=console
            )
        )
        return
    from singer_ray.search.space.dead import space_remarks
    from singer_ray.search.space.space import load_space
    from singer_ray.search.strategy.samplers import check_sampler

    out = flags.out or default_out("tune")
    if flags.dry_run:
        check_out(out, overwrite=flags.overwrite)
        space = load_space(config.search.space, config, flags.given)
        config = settle(space.apply(config, flags.given), {*flags.given, *space.fixed})
        check_sampler(config, space, config.search.objectives)
        lines = space_remarks(space, config, flags.given)
        costs = _check_plan(config, space)
        limit = f" or {config.search.time_budget:g} s" if config.search.time_budget else ""
        print_plan(
            config,
            [
                f"would search {', '.join(space.parameters)}",
                f"by {', '.join(config.search.objectives) or 'the best metric that the data can give'}",
                f"{config.search.trials} trials{limit}, into {out}",
                *costs,
            ],
            given=flags.given,
            remarks=lines,
        )
        return
    space = load_space(config.search.space, config, flags.given)
    if flags.submit:
        _submit(flags.submit, own_name(out), _metadata(space.apply(config, flags.given)), flags.typed)
        return
    check_out(out, overwrite=flags.overwrite)
    from singer_ray.search.driver.search import run_search

    _finish(run_search(config, out, given=tuple(flags.given), overwrite=flags.overwrite, console=console))


def _check_plan(config: Config, space: SearchSpace) -> list[str]:
    """What the search costs beyond the usual, in lines.

    Raises UserError for what the search would refuse before its first trial, as far as that is known without Ray.
    """
    from singer_ray.search.study.objectives import Objectives
    from singer_ray.tracking.trackers import check_trackers
    from singer_ray.training.blueprint import check_search
    from singer_ray.training.loop import EPOCH_METRICS

    check_trackers(config.search.trackers)
    if config.export.to is not None:
        from singer_ray.publishing.delivery import check_formats
        from singer_ray.publishing.packages.store import Store

        check_formats(config.export)
        Store(config.export.to, settings=config.export)
    corners = space.corners(config)
    plan = check_search(config, corners)
    reported = [*plan.suite.metric_names(), *EPOCH_METRICS]
    Objectives.of(config.search.objectives, config.search.stop_metric, reported)
    return list(dict.fromkeys(line for each in (config, *corners) for line in each.method.costs))


def _finish(done: Searched, console: Console = results) -> None:
    from singer_ray.finalize import finalize_search
    from singer_ray.search.study.leaderboard import as_rich_table, winners

    lasting(console)  # students are delivered also when nobody watches any more
    out, table = done.out, done.leaderboard
    console.print(as_rich_table(table, done.objectives, title=f"{len(table)} trials by {done.objectives}"))
    if REFINER in table.columns:
        best_of_each = winners(table, REFINER)
        console.print(as_rich_table(best_of_each, done.objectives, title="The best trial of each refiner"))
    report = finalize_search(done, lambda line: log(console, line))
    if not done.best:
        log(console, f"No trial came far enough to export a student; {out}/{LEADERBOARD_CSV} says why.")
        return
    best = done.best[0]
    log(console, f"Wrote {out}. Best student: {best} (timm.create_model({f'local-dir:{best}'!r}, pretrained=True))")
    log(console, f"Train it again:  {command('train', '--preset', best / CONFIG)}")
    log(console, f"Its report:      {report or out}")
    if (out / TENSORBOARD).is_dir():
        log(console, f"Its curves:      {shlex.join(['tensorboard', '--logdir', str(out / TENSORBOARD)])}")


def _metadata(config: Config) -> dict[str, str]:
    return {
        "space": config.search.space,
        "trials": str(config.search.trials),
        "objectives": " ".join(config.search.objectives) or "auto",
        "teacher": config.teacher.name,
        "student": config.student.name,
    }


def _submit(
    address: str,
    name: str,
    metadata: Mapping[str, str],
    typed: Mapping[str, Sequence[str]],
    console: Console = results,
) -> None:
    """Runs the same command, without --submit, as a job of the cluster; shows its output until it ends."""
    from singer_ray.nodes.submit import follow, how_to, submit

    options = {option: values for option, values in typed.items() if option != "submit"}
    job = submit(address, options, name=name, metadata={"experiment": name, **metadata})
    log(console, f"submitted {job}. {how_to(address, job)}")
    log(console, f"job {job}: {follow(address, job)}")


COMMAND = Command(
    "tune",
    __doc__,
    TuneFlags,
    ("trials", "time-budget", "concurrent", "space", "storage", "export", "workers"),
    distils=True,
    given="given",
    typed="typed",
)

if __name__ == "__main__":
    sys.exit(run_command(COMMAND, main))
