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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from singer_ray.cli import Command, check_out, console, default_out, prepare_out, print_plan, results, run_command
from singer_ray.config import Config
from singer_ray.config.effect import remarks
from singer_ray.errors import UserError

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class EvaluateFlags:
    """Flags of this command."""

    networks: tuple[str, ...] = ()
    """What to evaluate: a run or exported folder, demo, demo-clean, a timm name, hf-hub:OWNER/MODEL."""
    out: Path | None = None
    """Folder for the result; by default runs/evaluate-DATE-TIME."""
    overwrite: bool = False
    """Replace an earlier result in --out."""
    dry_run: bool = False
    """Check what needs no data, print what would run, and stop."""
    given: frozenset[str] = frozenset()
    """Knobs set on the command line rather than by a preset."""


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
        _say(line)
    begin = time.perf_counter()
    found = _evaluate(config, flags)
    results.print(table({name: entry["metrics"] for name, entry in found["networks"].items()}))
    if config.evaluation.protocol == "official":
        _say("The paper's code reports `best`, which it chooses on the test split; here it is chosen on validation.")
    prepare_out(out, overwrite=flags.overwrite)
    from singer_ray.publishing.result import git_commit, versions, write_json

    provenance = {"config": config.model_dump(mode="json"), "versions": versions(), "git_commit": git_commit()}
    seconds = round(time.perf_counter() - begin, 3)
    write_json(out / "result.json", {**found, **provenance, "seconds": seconds})
    results.print(f"Wrote {out}/result.json", highlight=False, markup=False, soft_wrap=True)


def _evaluate(config: Config, flags: EvaluateFlags) -> dict[str, Any]:
    from singer_ray.evaluation.comparison import Candidates, compare
    from singer_ray.training.workbench import pick_device

    candidates = Candidates({name: name for name in flags.networks}, tuple(flags.given))
    return compare(config, candidates, pick_device(config.train.device), _say)


def _say(line: str) -> None:
    console.print(line, highlight=False, markup=False)


def table(metrics: Mapping[str, Mapping[str, float]]) -> Table:
    """One row a metric, one column a network; ruled only where a person reads it."""
    drawn = Table(box=box.ROUNDED if console.is_terminal else None, pad_edge=False)
    drawn.add_column("metric", no_wrap=True)
    for name in metrics:
        drawn.add_column(name, justify="right", overflow="fold")
    for row in dict.fromkeys(name for found in metrics.values() for name in found):
        cells = [found.get(row) for found in metrics.values()]
        drawn.add_row(row, *("" if value is None else f"{value:.4f}" for value in cells))
    return drawn


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
