"""Trains a small teacher on a labelled source, for when no published one fits.

    python -m singer_ray.teacher --preset demo --plant --out runs/teacher
    python -m singer_ray.teacher --preset digits --out runs/digits-teacher

OUT/clean is the teacher as trained; with --plant, OUT/planted is the same with artifacts planted in it (a small
teacher has none of its own: they emerge in large transformers only). Both are folders for
--teacher.name local-dir:FOLDER.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from singer_ray.cli import Command, console, print_plan, results, run_command
from singer_ray.config import Config, TeacherRecipe
from singer_ray.config.effect import remarks
from singer_ray.console.outputs import check_out, default_out, prepare_out
from singer_ray.console.terminal import log
from singer_ray.layout import CLEAN


@dataclass(frozen=True)
class TeacherFlags(TeacherRecipe):
    """Flags of this command."""

    out: Path | None = None
    """Folder for the result; by default runs/teacher-DATE-TIME."""
    overwrite: bool = False
    """Replace an earlier result in --out."""
    dry_run: bool = False
    """Check what needs no data, print what would run, and stop."""
    given: frozenset[str] = frozenset()
    """Knobs set on the command line."""


def main(config: Config, flags: TeacherFlags) -> None:
    """Trains, plants if asked to, and writes OUT/clean, OUT/planted and OUT/result.json."""
    out = flags.out or default_out("teacher")
    check_out(out, overwrite=flags.overwrite)
    lines = remarks(flags.given, [config], "teacher")
    if flags.dry_run:
        from singer_ray.demo.teacher import check_recipe

        check_recipe(config, flags)
        plan = [f"would train a teacher {flags.width} wide and {flags.depth} deep for {flags.steps} steps"]
        plan += ["would then plant artifacts in it"] if flags.plant else []
        print_plan(config, plan, given=flags.given, remarks=lines)
        return
    for line in lines:
        console.print(line, highlight=False, markup=False)
    from singer_ray.demo.teacher import make_teacher

    make_teacher(config, flags, lambda: prepare_out(out, overwrite=flags.overwrite), console)
    option = shlex.join(["--teacher.name", f"local-dir:{out / CLEAN}"])
    log(results, f"Wrote {out}. Distil from it with {option}")


COMMAND = Command("teacher", __doc__, TeacherFlags, given="given")

if __name__ == "__main__":
    sys.exit(run_command(COMMAND, main))
