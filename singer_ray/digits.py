"""Writes scikit-learn's handwritten digits as folders of PNG files, to try the image-folder source on real images.

    python -m singer_ray.digits --out runs/digits

OUT gets train/, val/ and test/, with one folder per class: 1,797 images of 8 x 8 pixels.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from singer_ray.cli import Command, console, print_plan, results, run_command
from singer_ray.config import Config
from singer_ray.config.effect import remarks
from singer_ray.console.outputs import check_out, prepare_out
from singer_ray.console.terminal import log


@dataclass(frozen=True)
class DigitsFlags:
    """Flags of this command."""

    out: Path = Path("runs/digits")
    """Folder for the images; the preset digits reads runs/digits."""
    overwrite: bool = False
    """Replace an earlier result in --out."""
    dry_run: bool = False
    """Check the folder, print the resolved configuration and what would be written, and stop."""
    given: frozenset[str] = frozenset()
    """Knobs set on the command line."""


def main(config: Config, flags: DigitsFlags) -> None:
    """Writes the images."""
    check_out(flags.out, overwrite=flags.overwrite)
    lines = remarks(flags.given, [config], "digits")
    if flags.dry_run:
        plan = [f"would write 1,797 PNG files into {flags.out}"]
        print_plan(config, plan, given=flags.given, remarks=lines)
        return
    for line in lines:
        console.print(line, highlight=False, markup=False)
    from singer_ray.demo.digits import write_digits

    counts = write_digits(prepare_out(flags.out, overwrite=flags.overwrite))
    log(results, f"Wrote {', '.join(f'{n} {split}' for split, n in counts.items())} images into {flags.out}")


COMMAND = Command("digits", __doc__, DigitsFlags, given="given")

if __name__ == "__main__":
    sys.exit(run_command(COMMAND, main))
