"""The command line that all commands share: configuration tree, own flags, one-line errors."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from singer_ray import __version__
from singer_ray.config import Config
from singer_ray.config.given import differences
from singer_ray.console.outputs import Interrupted, guarded
from singer_ray.console.printing import screen
from singer_ray.console.runlog import RunLog, logged, note
from singer_ray.console.terminal import tolerate_encodings
from singer_ray.errors import UserError, printable
from singer_ray.options.command import QUIET, VERBOSE, Flags
from singer_ray.options.command import Command as Command
from singer_ray.options.parsing import parse
from singer_ray.storage import without_credentials

console = screen()
"""For progress; --quiet silences it."""
results = screen()
"""For what a command produces."""
LONGEST_MESSAGE = 2000
"""Characters."""


def run_command(
    command: Command[Flags], main: Callable[[Config, Flags], None], argv: Sequence[str] | None = None
) -> int:
    """Parses, runs `main` and returns the exit status; a UserError becomes one line on stderr and status 2."""
    tolerate_encodings()
    typed = list(sys.argv[1:] if argv is None else argv)
    words = [word for word in typed if word not in (QUIET, VERBOSE)]
    verbose = VERBOSE in typed
    with logged(lambda: _head(command, typed), verbose=verbose) as log, _silenced(QUIET in typed):
        try:
            if verbose:
                if QUIET in typed:
                    raise UserError(f"{QUIET} and {VERBOSE} contradict each other. Give one.")
                print("\n".join(_head(command, typed)), file=sys.stderr)
            config, flags = parse(command, words)
            with guarded():
                main(config, flags)
        except UserError as error:
            _complain(command, log, printable(error, LONGEST_MESSAGE), error)
            return 2
        except KeyboardInterrupt as error:
            how = f" {error}" if isinstance(error, Interrupted) else ""
            _complain(command, log, f"interrupted.{how}")
            return 130
        except BrokenPipeError:
            # The reader (head, less) has left: there is nobody to tell.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        except Exception:
            log.write(traceback.format_exc())
            raise
    return 0


def _complain(command: Command[Any], log: RunLog, line: str, error: UserError | None = None) -> None:
    if error is not None and error.__cause__ is not None:
        note("".join(traceback.format_exception(error)))
    log.write(line)
    print(f"{command.prog}: {line}", file=sys.stderr)


def _head(command: Command[Any], words: Sequence[str]) -> list[str]:
    from singer_ray.publishing.result import versions

    packages = ", ".join(f"{name} {version}" for name, version in versions().items() if name != "singer-ray")
    return [f"singer_ray {__version__}, {packages}", without_credentials(shlex.join([*command.prog.split(), *words]))]


@contextlib.contextmanager
def _silenced(quiet: bool) -> Iterator[None]:
    """Silences `console` while the block runs, if `quiet`."""
    before, console.quiet = console.quiet, quiet
    try:
        yield
    finally:
        console.quiet = before


def print_plan(
    config: Config, plan: Sequence[str], *, given: Collection[str] = (), remarks: Sequence[str] = ()
) -> None:
    """What --dry-run prints: what differs from the preset and remarks as comments, the resolved tree as YAML, then the
    plan as comments, so that the output is a preset."""
    start = getattr(given, "start", None)
    if start is not None:
        changed = differences(config, start)
        print("# differs from the preset:" if changed else "# all as in the preset")
        for line in changed:
            print(f"#   {printable(line, LONGEST_MESSAGE)}")
    for line in remarks:
        print(f"# remark: {printable(line, LONGEST_MESSAGE)}")
    print(config.to_yaml(), end="")
    for line in plan:
        print(f"# {printable(line, LONGEST_MESSAGE)}")
