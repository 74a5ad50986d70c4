"""Publishes the best students of a search, or the student of a run: to a folder or to S3, whole or not at all.

    python -m singer_ray.export runs/search --to s3://bucket/students --top 3
    python -m singer_ray.export runs/search --to shared/students --trial 007,012
    python -m singer_ray.export --verify s3://bucket/students
    python -m singer_ray.export --pull s3://bucket/students/search/students/1-006 DIR

EXPERIMENT_OR_RUN is the --out folder of singer_ray.tune or singer_ray.train, or its s3:// address. The address after
--to gets index.json, and for each experiment experiment.json, leaderboard.parquet, study/, report/ and
students/RANK-TRIAL/: packages with config.json and model.safetensors for timm, model.onnx, a card, and MANIFEST.json
with the SHA-256 of every file, which is written last. Credentials come from AWS's standard chain. Publishing again
changes nothing.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from singer_ray.cli import Command, console, print_plan, run_command
from singer_ray.config import Config
from singer_ray.config.effect import remarks
from singer_ray.config.places import Place
from singer_ray.console.terminal import log
from singer_ray.console.wording import command
from singer_ray.errors import UserError
from singer_ray.layout import INDEX, MANIFEST, STUDENTS
from singer_ray.metrics import direction

if TYPE_CHECKING:
    from singer_ray.publishing.experiment import Experiment
    from singer_ray.publishing.selection import Selection


@dataclass(frozen=True)
class ExportFlags:
    """Flags of this command."""

    places: tuple[Place, ...] = ()
    """Folder or s3:// address of a search or a run; with --pull the new folder."""
    to: Place | None = None
    """Required unless the experiment has export.to: folder or s3://bucket/prefix that receives the students."""
    top: int = 0
    """How many students, the best first; 0 is export.top."""
    metric: str | None = None
    """The best by this column of the leaderboard rather than by rank: NAME, NAME:max or NAME:min."""
    front: bool = False
    """The whole Pareto front of a search with several objectives."""
    trial: str | None = None
    """These trials, by their ids: 007 or 007,012."""
    replace: bool = False
    """Put the student in the place of another package that is there."""
    verify: Place | None = None
    """Compare every file of all packages below this address with its manifest."""
    pull: Place | None = None
    """Fetch the package at this address into a new folder, and verify it."""
    dry_run: bool = False
    """Print the resolved configuration and what would be exported, and stop."""
    given: frozenset[str] = frozenset()
    """Settings set on the command line rather than by a preset."""


def main(config: Config, flags: ExportFlags) -> None:
    """Publishes, verifies or fetches."""
    if flags.verify is not None and flags.pull is not None:
        raise UserError("--verify and --pull cannot be used together. Pulling verifies what it fetches.")
    if flags.verify is not None:
        _verify(config, flags.verify, flags.places)
    elif flags.pull is not None:
        _pull(config, flags.pull, flags.places)
    else:
        _export(config, flags)


def _export(config: Config, flags: ExportFlags) -> None:
    if len(flags.places) != 1:
        raise UserError(
            f"one EXPERIMENT_OR_RUN is needed, not {len(flags.places)}. Give the --out folder of singer_ray.tune or "
            "singer_ray.train."
        )
    from singer_ray.publishing.delivery import check_formats, deliver
    from singer_ray.publishing.experiment import Experiment
    from singer_ray.publishing.packages.store import Store

    endpoint, timeout = config.export.endpoint, config.export.timeout
    experiment = Experiment(flags.places[0], endpoint, timeout=timeout)
    experiment.metrics_of = functools.partial(_metrics_of, experiment)
    config = _with_own_settings(config, experiment, flags)
    selection = _selection(config, flags)
    choices = experiment.choose(selection)
    if config.export.to is None:
        raise UserError("--to is missing. Give the folder or the s3://bucket/prefix that receives the students.")
    lines = remarks(flags.given, [], "export")
    store = Store(config.export.to, settings=config.export, setting="--to")
    if flags.dry_run:
        check_formats(config.export)
        plan = [f"would export {c.name} of {experiment.name} to {store.address}" for c in choices]
        print_plan(config, plan, given=flags.given, remarks=lines)
        return
    for line in lines:
        _log(line)
    published = deliver(experiment, store, config.export, selection, replace=flags.replace, log=_log)
    _log(f"{len(published)} in {store.address}/{experiment.name}/{STUDENTS}, listed in {store.address}/{INDEX}")
    _log(f"Fetch one:  {command('export', '--pull', published[0], 'DIR')}")


def _verify(config: Config, address: str, places: tuple[str, ...]) -> None:
    from singer_ray.publishing.delivery import listed_packages
    from singer_ray.publishing.packages.store import Store

    if places:
        raise UserError(f"--verify takes one address, not {places[0]!r} too.")
    store = Store(address, settings=config.export, setting="--verify", writable=False)
    names = store.packages()
    if not names:
        raise UserError(f"--verify {address!r}: there is no package (no MANIFEST.json) below it. Check the address.")
    size, problems = 0, []
    for name in names:
        try:
            manifest = store.verify(name)
        except UserError as error:
            problems.append(str(error))
            continue
        size += manifest.size
        _log(f"OK: {'/'.join(filter(None, (store.address, name)))}, {len(manifest.files)} files")
    listed = listed_packages(store)
    problems += [
        f"{store.address}/{name} is listed, but is not there as it was published. Publish it again with --replace."
        for name in store.missing({name: digest for name, digest in listed.items() if name not in names})
    ]
    for problem in problems[1:]:
        _log(f"incomplete: {problem}")
    if problems:
        more = f" ({len(problems)} packages are incomplete, of {len({*names, *listed})})" if len(problems) > 1 else ""
        raise UserError(f"{problems[0]}{more}")
    _log(f"{len(names)} package{'s' * (len(names) > 1)}, {size / 1e6:.1f} MB, all OK")


def _pull(config: Config, address: str, places: tuple[str, ...]) -> None:
    from singer_ray.publishing.packages.store import Store

    if len(places) != 1:
        raise UserError(f"--pull {address} needs one new folder after it, not {len(places)}.")
    store = Store(address, settings=config.export, setting="--pull", writable=False)
    if store.read(MANIFEST) is None and (inside := store.packages()):
        raise UserError(f"--pull {address!r} is not a package. Name one in it: {', '.join(inside[:5])}.")
    manifest = store.pull("", Path(places[0]))
    _log(f"{places[0]}: {len(manifest.files)} files, {manifest.size / 1e6:.1f} MB, all as in the manifest")
    _log(f"timm.create_model({f'local-dir:{places[0]}'!r}, pretrained=True)")


def _with_own_settings(config: Config, experiment: Experiment, flags: ExportFlags) -> Config:
    """The configuration with the experiment's own export settings; those of the command line win."""
    own = experiment.export_settings()
    kept = {name: value for name, value in own.items() if name not in flags.given}
    mine = {name: value for name, value in (("export.to", flags.to), ("export.top", flags.top or None)) if value}
    return config.override({**kept, **mine})


def _selection(config: Config, flags: ExportFlags) -> Selection:
    from singer_ray.publishing.selection import Selection

    ways = {"--trial": flags.trial, "--front": flags.front, "--metric": flags.metric}
    several = [name for name, value in ways.items() if value]
    if len(several) > 1:
        raise UserError(f"{' and '.join(several)} cannot be used together. Choose one.")
    metric, _, mode = (flags.metric or "").partition(":")
    if mode not in ("", "max", "min"):
        raise UserError(f"--metric {flags.metric!r} has the direction {mode!r}. Allowed: {metric}:max or {metric}:min.")
    if metric and not mode:
        mode = direction(metric)
    trials = tuple(part.strip() for part in (flags.trial or "").split(",") if part.strip())
    return Selection(config.export.top, metric or None, mode or "max", flags.front, trials)


def _metrics_of(experiment: Experiment, trial: str) -> Mapping[str, Any]:
    """The metrics of a trial's last epoch, from the study; empty when the study cannot be read here."""
    from singer_ray.search.study.opening import load_study, storage_of
    from singer_ray.search.study.schema import last_result, own_rows

    address = experiment.search.get("study")
    try:
        if address is None and experiment.folder.path is None:
            return {}
        study = load_study(storage_of(address, experiment.folder.path or Path(), "read"), experiment.name)
        return next((last_result(row) for row in own_rows(study) if f"{row.number:03d}" == trial), {})
    except UserError:
        return {}


def _log(line: str) -> None:
    log(console, line)


COMMAND = Command("export", __doc__, ExportFlags, positional="places", metavar="EXPERIMENT_OR_RUN", given="given")

if __name__ == "__main__":
    sys.exit(run_command(COMMAND, main))
