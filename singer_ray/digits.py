"""Writes scikit-learn's handwritten digits as folders of PNG files, to try the image-folder source on real images.

    python -m singer_ray.digits --out runs/digits

OUT gets train/, val/ and test/, with one folder per class: 1,797 images of 8 x 8 pixels.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from singer_ray.cli import Command, check_out, prepare_out, print_plan, results, run_command
from singer_ray.config import Config


@dataclass(frozen=True)
class DigitsFlags:
    """Flags of this command."""

    out: Path = Path("runs/digits")
    """Folder for the images; the preset digits reads runs/digits."""
    overwrite: bool = False
    """Replace an earlier result in --out."""
    dry_run: bool = False
    """Print the resolved configuration and what would be written, and stop."""


def main(config: Config, flags: DigitsFlags) -> None:
    """Writes the images."""
    if flags.dry_run:
        print_plan(config, [f"would write 1,797 PNG files into {flags.out}"])
        return
    check_out(flags.out, overwrite=flags.overwrite)
    from singer_ray.data.digits import write_digits

    counts = write_digits(prepare_out(flags.out, overwrite=flags.overwrite))
    told = ", ".join(f"{n} {split}" for split, n in counts.items())
    results.print(f"Wrote {told} images into {flags.out}", highlight=False, markup=False, soft_wrap=True)


COMMAND = Command("digits", __doc__, DigitsFlags)

if __name__ == "__main__":
    sys.exit(run_command(COMMAND, main))
