"""Says whether a teacher's features carry artifacts, and whether these bias distillation.

    python -m singer_ray.analyze --out runs/analysis
    python -m singer_ray.analyze --preset imagenet-vitl-vitt --data.train IMAGES/train --out runs/analysis

Any teacher, any images, labels or none. OUT gets result.json (a verdict in words, and the figures for every block),
config.yaml, and pictures: layers.png, norm_histograms.png, norm_maps.png, pca.png and gradient_share.png. For the last
two, a student is trained for a few steps without a refiner and one with --method.refiner.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

from singer_ray.cli import Command, console, print_plan, results, run_command
from singer_ray.config import Config
from singer_ray.config.effect import remarks
from singer_ray.console.outputs import check_out, default_out, prepare_out
from singer_ray.console.terminal import log
from singer_ray.errors import UserError


@dataclass(frozen=True)
class AnalyzeFlags:
    """Flags of this command."""

    out: Path | None = None
    """Folder for the result; by default runs/analyze-DATE-TIME."""
    overwrite: bool = False
    """Replace an earlier result in --out."""
    dry_run: bool = False
    """Check what needs no data, print what would run, and stop."""
    given: frozenset[str] = frozenset()
    """Knobs set on the command line."""
    k: float = 4.0
    """A token counts as an outlier when its norm is above k x the median norm of its image."""
    steps: int = 100
    """Training steps over which the gradient's share is followed; 0 measures an untrained student only."""
    images: int = 512
    """Images to read: of data.val where there is one, else of data.train; 0 means all."""


def main(config: Config, flags: AnalyzeFlags) -> None:
    """Analyses, prints the verdict and writes OUT."""
    _check(flags)
    out = flags.out or default_out("analyze")
    lines = remarks(flags.given, [config], "analyze")
    if flags.dry_run:
        check_out(out, overwrite=flags.overwrite)
        from singer_ray.training.blueprint import check_run

        check_run(config)
        images, teacher = flags.images or "all", config.teacher.name
        wrapper = config.method.wrapper
        through = f" (teacher through {wrapper})" if wrapper != "none" else ""
        plan = [
            f"would read {images} images at every block of {teacher}, outliers above {flags.k:g} x median",
            f"would train students with refiners none and {config.method.refiner}{through} for {flags.steps} steps, "
            f"into {out}",
            *config.method.costs,
        ]
        print_plan(config, plan, given=flags.given, remarks=lines)
        return
    check_out(out, overwrite=flags.overwrite)
    from singer_ray.analysis.findings import AnalysisSettings
    from singer_ray.analysis.run import run_analysis

    for line in lines:
        console.print(line, highlight=False, markup=False)
    result = run_analysis(
        config,
        out,
        AnalysisSettings(flags.k, flags.steps, flags.images),
        prepare=lambda: prepare_out(out, overwrite=flags.overwrite),
        log=lambda line: log(console, line),
    )
    if console.quiet:
        log(results, result["verdict"]["text"])
    log(results, f"Wrote {out}/result.json and pictures")


def _check(flags: AnalyzeFlags) -> None:
    if not (math.isfinite(flags.k) and flags.k > 1):
        raise UserError(f"--k is {flags.k}. Allowed: a number above 1; 3 to 6 is usual.")
    for name, value in (("steps", flags.steps), ("images", flags.images)):
        if value < 0:
            raise UserError(f"--{name} is {value}. Allowed: a whole number from 0.")


COMMAND = Command("analyze", __doc__, AnalyzeFlags, distils=True, given="given")

if __name__ == "__main__":
    sys.exit(run_command(COMMAND, main))
