"""Scores frozen networks side by side: students, teachers and baselines of one's own.

    python -m singer_ray.evaluate runs/demo demo demo-clean
    python -m singer_ray.evaluate runs/vitt vit_tiny_patch16_224 --preset runs/vitt/config.yaml --out runs/compared

A NETWORK is a run's folder, an exported folder (with config.json), demo, demo-clean, a timm name, hf-hub:OWNER/MODEL
or local-dir:FOLDER. Each reads images of its own size, crop and scaling, unless --data.image_size or --data.crop_pct
is given here. Images and annotations are those of data.* (or evaluation.data.*), the teacher that gram_cosine compares
with is teacher.name; take both from a run with --preset RUN/config.yaml. --teacher.pretrained False gives
networks with a timm name random weights.

OUT gets result.json: networks (name -> metrics, input, notes), configuration, versions, git commit, seconds.
Metrics are flat: SPLIT/NAME reads the last block's output, SPLIT/after_norm/NAME the same through the final norm.
With --evaluation.protocol official, heads are trained as in the paper's code: SPLIT/official/NAME/last and .../best.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from singer_ray.cli import Command, console, print_plan, results, run_command
from singer_ray.config import Config
from singer_ray.config.effect import remarks
from singer_ray.config.places import Place
from singer_ray.console.outputs import check_out, default_out, prepare_out
from singer_ray.console.terminal import Column, fitting, log
from singer_ray.errors import UserError, printable
from singer_ray.layout import RESULT
from singer_ray.metrics import MAX, MIN, direction

_ARROWS = {MAX: "↑", MIN: "↓"}


@dataclass(frozen=True)
class EvaluateFlags:
    """Flags of this command."""

    networks: tuple[Place, ...] = ()
    """What to evaluate: a run or exported folder, demo, demo-clean, a timm name, hf-hub:OWNER/MODEL."""
    out: Path | None = None
    """Folder for the result; by default runs/evaluate-DATE-TIME."""
    overwrite: bool = False
    """Replace an earlier result in --out."""
    dry_run: bool = False
    """Check what needs no data, print what would run, and stop."""
    given: frozenset[str] = frozenset()
    """Settings given on the command line rather than by a preset."""


def main(config: Config, flags: EvaluateFlags) -> None:
    """Evaluates, prints the table and writes OUT/result.json."""
    _check_networks(flags.networks)
    out = flags.out or default_out("evaluate")
    check_out(out, overwrite=flags.overwrite)
    lines = remarks(flags.given, [config], "evaluate")
    if flags.dry_run:
        from singer_ray.evaluation.inputs import check_inputs

        check_inputs(config, flags.networks, flags.given)
        protocol = config.evaluation.protocol
        plan = [f"would evaluate {', '.join(flags.networks)}, protocol {protocol}, into {out}"]
        print_plan(config, plan, given=flags.given, remarks=lines)
        return
    for line in lines:
        _log(line)
    begin = time.perf_counter()
    comparison = _evaluate(config, flags)
    for table in tables(comparison["networks"], results.width, plain=not results.is_terminal):
        results.print(table)
    log(results, "↑ more is better, ↓ less is better" + ("; * the best" if len(flags.networks) > 1 else ""))
    if config.evaluation.protocol == "official":
        _log("The paper's code reports `best`, which it chooses on the test split; here it is chosen on validation.")
    prepare_out(out, overwrite=flags.overwrite)
    from singer_ray.publishing.result import git_commit, versions, write_json

    provenance = {"config": config.model_dump(mode="json"), "versions": versions(), "git_commit": git_commit()}
    seconds = round(time.perf_counter() - begin, 3)
    write_json(out / RESULT, {**comparison, **provenance, "seconds": seconds})
    log(results, f"Wrote {out}/{RESULT}")


def _evaluate(config: Config, flags: EvaluateFlags) -> dict[str, Any]:
    from singer_ray.evaluation.comparison import Candidates, compare
    from singer_ray.training.context import pick_device

    candidates = Candidates({name: name for name in flags.networks}, tuple(flags.given))
    return compare(config, candidates, pick_device(config.train.device), _log)


def _log(line: str) -> None:
    log(console, line)


def tables(networks: Mapping[str, Mapping[str, Any]], width: int, *, plain: bool) -> list[Table]:
    """One row a metric, one column a network, `*` at the best; as many tables as the width asks for.

    Args:
        networks: name -> entry of result.json.
        plain: without rules, where no person reads it.
    """
    metrics = dict.fromkeys(name for entry in networks.values() for name in entry["metrics"])
    heads = [f"{name} {_ARROWS[direction(name)]}" for name in metrics]
    best = {name: _best(name, networks) for name in metrics}
    columns = []
    for name, entry in networks.items():
        cells = [f"{entry['parameters']:,}"]
        for metric in metrics:
            value = entry["metrics"].get(metric)
            star = "*" if value is not None and value == best[metric] else ""
            cells.append("" if value is None else f"{star}{value:.4f}")
        columns.append(Column(name, cells))
    first = Column("metric", ["parameters", *heads], right=False, needed=True)
    drawn = []
    while columns:
        fits = fitting([first, *columns], width)[1:] or columns[:1]
        columns = columns[len(fits) :]
        drawn.append(_table([first, *fits], plain=plain))
    return drawn


def _table(columns: Sequence[Column], *, plain: bool) -> Table:
    drawn = Table(box=None if plain else box.ROUNDED, pad_edge=False)
    for column in columns:
        drawn.add_column(Text(printable(column.head)), justify="right" if column.right else "left", overflow="fold")
    for cells in zip(*(column.cells for column in columns)):
        drawn.add_row(*(Text(cell, style="bold" if cell.startswith("*") else "") for cell in cells))
    return drawn


def _best(metric: str, networks: Mapping[str, Mapping[str, Any]]) -> float | None:
    """The best value of several networks; None where there is nothing to choose."""
    values: list[float] = [entry["metrics"][metric] for entry in networks.values() if metric in entry["metrics"]]
    if len(values) < 2 or min(values) == max(values):
        return None
    return max(values) if direction(metric) == MAX else min(values)


def _check_networks(names: tuple[str, ...]) -> None:
    if not names:
        raise UserError(
            "no network is named. Give one or more: a run's folder, an exported folder, demo, a timm name, "
            "hf-hub:OWNER/MODEL."
        )
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"network {twice[0]!r} is given {names.count(twice[0])} times. Name each once.")


COMMAND = Command("evaluate", __doc__, EvaluateFlags, positional="networks", metavar="NETWORK ...", given="given")

if __name__ == "__main__":
    sys.exit(run_command(COMMAND, main))
