"""Distils one student.

    python -m singer_ray.train --out runs/demo
    python -m singer_ray.train --preset imagenet-vitl-vitt --data.train IMAGES/train --data.val IMAGES/val --workers 8
    python -m singer_ray.train --resume runs/demo

OUT gets result.json (metrics, configuration, versions), config.yaml, history.csv (a row an epoch), curves.png,
report.html (one page that opens offline), pictures/ (patch norms and principal components of teacher and student),
tensorboard/, log.txt, and student/, a folder that timm.create_model("local-dir:OUT/student", pretrained=True) loads.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from singer_ray.cli import Command, console, print_plan, results, run_command
from singer_ray.config import Config
from singer_ray.config.effect import remarks
from singer_ray.config.places import Place
from singer_ray.console.outputs import check_out, default_out, prepare_out
from singer_ray.console.terminal import log
from singer_ray.errors import UserError
from singer_ray.layout import RESULT


@dataclass(frozen=True)
class TrainFlags:
    """Flags of this command."""

    out: Path | None = None
    """Folder for the result; by default runs/train-DATE-TIME."""
    overwrite: bool = False
    """Replace an earlier result in --out."""
    resume: Place | None = None
    """Go on with the run in this folder (without a value: in --out) after its last finished epoch."""
    dry_run: bool = False
    """Check what needs no data, print what would run, and stop."""
    given: frozenset[str] = frozenset()
    """Settings set on the command line."""
    typed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The options as they were typed, values by plain name."""


def main(config: Config, flags: TrainFlags) -> None:
    """Trains, evaluates and writes OUT."""
    resume = flags.resume is not None
    out = _folder_to_resume(flags) if resume else flags.out or default_out("train")
    if resume:
        from singer_ray.training.resuming import resumed_config

        preset = next(iter(flags.typed.get("preset", ())), None)
        config = resumed_config(out, {name: config.value(name) for name in flags.given}, preset)
    if flags.dry_run:
        check_out(out, overwrite=flags.overwrite, resume=resume)
        from singer_ray.training.blueprint import check_run

        blueprint = check_run(config)
        train = config.train
        length = f"{train.steps_per_epoch} steps" if train.steps_per_epoch else "one pass over the images"
        workers = f"{train.workers} worker{'s' * (train.workers > 1)}"
        wrapper = config.method.wrapper
        through = f" through {wrapper}" if wrapper != "none" else ""
        print_plan(
            config,
            [
                f"would distil {config.teacher.name}{through} into {config.student.name}, refiner "
                f"{config.method.refiner}",
                *config.method.costs,
                f"for {train.epochs} epochs of {length}, batch {train.batch_size}, {workers}, into {out}",
            ],
            given=flags.given,
            remarks=remarks(flags.given, [config], "train", blueprint.annotations),
        )
        return
    check_out(out, overwrite=flags.overwrite, resume=resume)
    from singer_ray.distillation import run_distillation
    from singer_ray.finalize import finalize_run

    done = run_distillation(
        config,
        out,
        resume=resume,
        given=() if resume else flags.given,
        prepare=lambda: prepare_out(out, overwrite=flags.overwrite, resume=resume),
        log=_log,
        console=console,
    )
    report = finalize_run(done, _log)
    beside = f", {report}" if report else ""
    log(results, f"Wrote {out}/{RESULT}{beside} and {done.student}")


def _log(line: str) -> None:
    log(console, line)


def _folder_to_resume(flags: TrainFlags) -> Path:
    if flags.overwrite:
        raise UserError("--resume goes on with a run, --overwrite deletes it. Give one.")
    named = Path(flags.resume) if flags.resume else None
    if named is None and flags.out is None:
        raise UserError("--resume needs a folder: that of the run to continue, --resume DIR.")
    if named is not None and flags.out is not None and named.resolve() != flags.out.resolve():
        raise UserError(f"--resume {named} and --out {flags.out} are two folders. Give one: --resume {named}.")
    folder = named or flags.out
    assert folder is not None
    return folder


COMMAND = Command(
    "train",
    __doc__,
    TrainFlags,
    ("workers", "storage", "trackers"),
    distils=True,
    given="given",
    typed="typed",
    optional=("resume",),
)

if __name__ == "__main__":
    sys.exit(run_command(COMMAND, main))
