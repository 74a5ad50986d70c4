"""Distils one student.

    python -m singer_ray.train --out runs/demo
    python -m singer_ray.train --preset imagenet-vitl-vitt --data.train IMAGES/train --data.val IMAGES/val --workers 8

OUT gets result.json (metrics, configuration, versions), config.yaml, pictures/ (patch norms and principal components of
teacher and student), and student/, a folder that timm.create_model("local-dir:OUT/student", pretrained=True) loads.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from singer_ray.cli import Command, check_out, console, default_out, prepare_out, print_plan, run_command
from singer_ray.config import Config
from singer_ray.errors import UserError
from singer_ray.terminal import say


@dataclass(frozen=True)
class TrainFlags:
    """Flags of this command."""

    out: Path | None = None
    """Folder for the result; by default runs/train-DATE-TIME."""
    overwrite: bool = False
    """Replace an earlier result in --out."""
    resume: bool = False
    """Continue the run in --out after its last finished epoch."""
    dry_run: bool = False
    """Print the resolved configuration and what would run, and stop."""


def main(config: Config, flags: TrainFlags) -> None:
    """Trains, evaluates and writes OUT."""
    out = flags.out or default_out("train")
    if flags.dry_run:
        train = config.train
        length = f"{train.steps_per_epoch} steps" if train.steps_per_epoch else "one pass over the images"
        print_plan(config, [
            f"would distil {config.teacher.name} into {config.student.name}, refiner {config.method.refiner}",
            f"for {train.epochs} epochs of {length}, batch {train.batch_size}, {train.workers} worker(s), into {out}",
        ])  # fmt: skip
        return
    if flags.resume and flags.out is None:
        raise UserError("--resume needs --out: the folder of the run to continue.")
    check_out(out, overwrite=flags.overwrite, resume=flags.resume)
    from singer_ray.distillation import run_distillation

    done = run_distillation(
        config, out, resume=flags.resume,
        prepare=lambda: prepare_out(out, overwrite=flags.overwrite, resume=flags.resume),
        say=lambda line: say(console, line),
    )  # fmt: skip
    say(console, f"Wrote {out}/result.json and {done.student}")


COMMAND = Command("train", __doc__, TrainFlags, ("workers", "storage"))

if __name__ == "__main__":
    sys.exit(run_command(COMMAND, main))
