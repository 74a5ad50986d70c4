"""Lists the commands: python -m singer_ray"""

from __future__ import annotations

import sys

from singer_ray import __version__
from singer_ray.errors import nearest

COMMANDS = {
    "train": "distils one student",
    "tune": "searches for the best student with Ray Tune and Optuna, and exports the best ones",
    "report": "writes one offline page about a search: best setting, leaderboard, curves, parameters, cost",
    "export": "publishes the best students of a search to a folder or S3; verifies and fetches published ones",
    "analyze": "says whether a teacher's features carry artifacts and whether these bias distillation",
    "evaluate": "scores frozen students, teachers and baselines side by side: probes, artifacts, likeness to a teacher",
    "teacher": "trains a small teacher on labelled images, for when no published one fits",
    "digits": "writes scikit-learn's handwritten digits as folders of PNG files, to try real images",
}


def main() -> int:
    """Prints the list; a command given as an argument gets the line that runs it."""
    given = [argument for argument in sys.argv[1:] if argument not in ("-h", "--help")]
    if given:
        hint = (
            f"Run `python -m singer_ray.{given[0]}`." if given[0] in COMMANDS else nearest(given[0], COMMANDS).strip()
        )
        print(f"python -m singer_ray: {given[0]!r} is no argument here. {hint}".rstrip(), file=sys.stderr)
        return 2
    print(f"singer_ray {__version__}: distil large Vision Transformers into small ones\n")
    for name, what in COMMANDS.items():
        print(f"  python -m singer_ray.{name:<9} {what}")
    print("\nEach has --help and --dry-run. From Python: from singer_ray import distill, sweep")
    return 0


if __name__ == "__main__":
    sys.exit(main())
