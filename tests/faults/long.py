"""Kills searches at random moments, resumes them, and compares each with one that was left alone.

    python -m tests.faults.long                    all seeds
    python -m tests.faults.long --seeds 3 17       these
    python -m tests.faults.long --folder DIR       keeps logs and searches there

Prints a line a seed and a table, writes the seeds' outcomes into outcomes.json beside this file, and exits 1 when
anything was lost, changed, doubled or left behind.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import os
import platform
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import boto3
import yaml

from singer_ray.publishing.result import git_commit, versions, write_json
from singer_ray.storage import Folder
from tests.conftest import SMALL
from tests.faults.records import FINAL, Row, read_rows, violations
from tests.faults.session import Session, started
from tests.servers import ENVIRONMENT, s3_server

OUTCOMES = Path(__file__).parent / "outcomes.json"
SEEDS = range(20)
BUCKET = "searches"
SPACE = {
    "method.rank": {"type": "int", "low": 2, "high": 16},
    "train.lr": {"type": "loguniform", "low": 1e-3, "high": 4e-3},
}
ENDED = r"^trial (\S+) (?:COMPLETE|PRUNED|FAIL) "


@dataclass(frozen=True)
class Shape:
    """What is searched."""

    trials: int
    epochs: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self, space: Path) -> list[str]:
        settings = SMALL | {
            "train.epochs": self.epochs,
            "search.trials": self.trials,
            "search.concurrent": 1,
            "search.space": space,
            "search.startup_trials": 2,
            "search.grace_epochs": 1,
            "search.reduction_factor": 2,
            "export.top": 2,
            **self.settings,
        }
        return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


SHAPES = {
    "usual": Shape(5, 3),
    "repeats": Shape(2, 2, {"search.repeats": 2, "search.repeat_top": 2, "search.scheduler": "none"}),
    "tiny": Shape(10, 1, {"train.steps_per_epoch": 1}),
}
KINDS = {
    "driver": "usual",
    "ask-tell": "tiny",
    "trial": "usual",
    "cluster": "usual",
    "driver-twice": "usual",
    "repeats": "repeats",
    "host": "usual",
}
"""What is killed -> the shape of the search. ask-tell is the driver too, at a line that it writes into the study."""
SURVIVED = ("trial", "host", "cluster")
"""The driver is left alone: it goes on, or says why it cannot."""


@dataclass
class Outcome:
    """What happened to one seed."""

    seed: int
    kind: str
    storage: str
    moment: str = ""
    before: dict[str, int] = field(default_factory=dict)
    """Rows by state when it was killed."""
    statuses: list[int | None] = field(default_factory=list)
    """Exit status of each driver, the killed one first."""
    resumed: dict[str, int] = field(default_factory=dict)
    """Trial -> resumed_from_epoch."""
    seconds: float = 0.0
    violations: list[str] = field(default_factory=list)


class Trial:
    """A search with a seed: started, killed, resumed until it ends, judged."""

    def __init__(self, seed: int, place: Path, endpoint: str, references: Mapping[str, Sequence[Row]]) -> None:
        self.random = random.Random(seed)
        self.kind = list(KINDS)[seed % len(KINDS)]
        self.shape = SHAPES[KINDS[self.kind]]
        self.reference = references[KINDS[self.kind]]
        self.place, self.endpoint = place, endpoint
        remote = seed % 3 == 2
        self.address = f"s3://{BUCKET}/{seed}/search" if remote else None
        self.out = place / "here" / "search"
        self.environment = ENVIRONMENT | {"AWS_ENDPOINT_URL": endpoint}
        self.outcome = Outcome(seed, self.kind, "s3" if remote else "disk")

    @property
    def state(self) -> Folder:
        """Where a resume finds it."""
        return Folder(self.address or str(self.out), self.endpoint if self.address else None)

    def run(self) -> Outcome:
        begin = time.monotonic()
        try:
            self._run()
        except Exception as error:
            self.outcome.violations.append(f"{type(error).__name__}: {error}")
        self.outcome.seconds = round(time.monotonic() - begin, 1)
        return self.outcome

    def _run(self) -> None:
        space = self.place / "space.yaml"
        space.write_text(yaml.safe_dump(SPACE))
        arguments = [*self.shape.arguments(space), "--out", str(self.out)]
        if self.address:
            arguments += ["--storage", self.address.removesuffix("/search")]
        with started(arguments, self.place / "1.log", self.environment) as session:
            self._strike(session)
            before, announced = self._seen(session)
            self._end(session)
        self.outcome.before = dict(Counter(row.state for row in before))
        if self.kind == "driver-twice":
            self._empty_machine()
            with started(self._resume(), self.place / "again.log", self.environment) as session:
                delay = self.random.uniform(0, 12)
                self.outcome.moment += f", again {delay:.2f} s after the resume's first line"
                time.sleep(delay)
                session.kill_driver()
                self._end(session)
        for attempt in range(2, 5):
            if self.outcome.statuses[-1] == 0:
                break
            self._empty_machine()
            with started(self._resume(), self.place / f"{attempt}.log", self.environment) as session:
                self._end(session)
        self._judge(before, announced)

    def _strike(self, session: Session) -> None:
        """Waits for the moment, and kills."""
        if self.kind == "ask-tell":
            lines = self.random.randrange(12, 150)
            self.outcome.moment = f"line {lines} of the study"
            journal, size = self.out / "study.journal", 0
            while session.driver.poll() is None:
                with contextlib.suppress(OSError):
                    if size != (size := journal.stat().st_size) and journal.read_bytes().count(b"\n") >= lines:
                        break
                time.sleep(0.001)
            session.kill_driver()
            return
        if self.kind == "repeats":
            count, pattern = self.random.randrange(1, 6), r"-seed\d+ "
        else:
            count, pattern = self.random.randrange(1, 12), r"^trial \d"
        delay = self.random.uniform(0, 1.5)
        self.outcome.moment = f"{delay:.2f} s after line {count}"
        session.wait_for(pattern, count)
        time.sleep(delay)
        match self.kind:
            case "trial":
                session.kill_one("ray::DistillationTrial")
            case "host":
                session.kill_one("ray::TrainerActor")
            case "cluster":
                session.kill_cluster()
            case _:
                session.kill_driver()

    def _seen(self, session: Session) -> tuple[list[Row], list[str]]:
        """The rows that a resume would find now, and the trials whose end had been printed."""
        announced = [line.split()[1] for line in session.lines(ENDED)]
        return read_rows(self.state), announced

    def _end(self, session: Session) -> None:
        status = session.wait(limit=1200)
        self.outcome.statuses.append(status)
        if status is None:
            self.outcome.violations.append("the driver hung")
            session.kill_driver()
        left = session.leftovers()
        if left:
            self.outcome.violations.append(f"left behind: {left}")
        survived = self.kind in SURVIVED and session.log.name == "1.log"  # Ray shows what its process died of
        if "Traceback" in session.text and not survived:
            self.outcome.violations.append(f"a traceback in {session.log.name}")

    def _empty_machine(self) -> None:
        if self.address:
            shutil.rmtree(self.out.parent, ignore_errors=True)
            self.out = self.place / f"there{len(self.outcome.statuses)}" / "search"

    def _resume(self) -> list[str]:
        return ["--resume", self.address, "--out", str(self.out)] if self.address else ["--resume", str(self.out)]

    def _judge(self, before: Sequence[Row], announced: Sequence[str]) -> None:
        trials = self.state.below("trials")
        revived = len(self.outcome.statuses) > 1
        self.outcome.resumed = {
            row.label: row.resumed for row in read_rows(Folder(str(self.out))) if row.resumed is not None
        }
        self.outcome.violations += violations(
            self.out,
            trials,
            wanted=self.shape.trials,
            epochs=self.shape.epochs,
            reference=self.reference,
            before=before,
            announced=announced,
            revived=revived,
        )
        if self.outcome.statuses[-1] != 0:
            self.outcome.violations.append(f"exit status {self.outcome.statuses[-1]}")


def left_alone(name: str, folder: Path) -> list[Row]:
    """The rows of a search of this shape that nobody kills; those of an earlier call where FOLDER has them."""
    out = folder / f"reference-{name}" / "search"
    if not (out / "leaderboard.csv").exists():
        shutil.rmtree(out.parent, ignore_errors=True)
        out.parent.mkdir(parents=True)
        space = out.parent / "space.yaml"
        space.write_text(yaml.safe_dump(SPACE))
        arguments = [*SHAPES[name].arguments(space), "--out", str(out)]
        with started(arguments, out.parent / "1.log") as session:
            if session.wait(limit=1200) != 0:
                raise RuntimeError(f"the reference failed: {session.text[-2000:]}")
    rows = read_rows(Folder(str(out)))
    assert rows
    assert all(row.state in FINAL for row in rows)
    return rows


def campaign(seeds: Sequence[int], folder: Path, jobs: int) -> list[Outcome]:
    """The outcomes of all seeds, `jobs` at a time."""
    names = {KINDS[list(KINDS)[seed % len(KINDS)]] for seed in seeds}
    with s3_server() as endpoint, concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        os.environ.update(ENVIRONMENT)
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)
        references = dict(zip(sorted(names), pool.map(lambda name: left_alone(name, folder), sorted(names))))
        print(f"references: {', '.join(f'{name} {len(rows)} rows' for name, rows in references.items())}", flush=True)

        writing = threading.Lock()

        def one(seed: int) -> Outcome:
            place = folder / f"seed-{seed}"
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            outcome = Trial(seed, place, endpoint, references).run()
            print(_line(outcome), flush=True)
            for violation in outcome.violations:
                print(f"      {violation}", flush=True)
            with writing:
                keep(outcome, f"python -m tests.faults.long --jobs {jobs}")
            return outcome

        return list(pool.map(one, seeds))


def keep(outcome: Outcome, command: str) -> None:
    """Writes a seed's outcome in place of an earlier one."""
    earlier = json.loads(OUTCOMES.read_text(encoding="utf-8"))["outcomes"] if OUTCOMES.exists() else []
    kept = {each["seed"]: each for each in earlier} | {outcome.seed: asdict(outcome) | {"git_commit": git_commit()}}
    content = {
        "command": command,
        "versions": versions(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "outcomes": [kept[seed] for seed in sorted(kept)],
    }
    write_json(OUTCOMES, content)


def _line(outcome: Outcome) -> str:
    word = "WRONG" if outcome.violations else "ok"
    before = ", ".join(f"{count} {state.lower()}" for state, count in outcome.before.items())
    return (
        f"{outcome.seed:>4} {outcome.kind:<13} {outcome.storage:<5} {outcome.moment:<58} {before:<34} "
        f"{' '.join(map(str, outcome.statuses)):<10} {len(outcome.resumed)} resumed {outcome.seconds:>6.1f} s  {word}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
        folder.mkdir(parents=True, exist_ok=True)
        outcomes = campaign(options.seeds, folder.absolute(), options.jobs)
    print("\nseed what          where moment" + " " * 53 + "rows when killed" + " " * 19 + "exits")
    for outcome in outcomes:
        print(_line(outcome))
    wrong = [outcome.seed for outcome in outcomes if outcome.violations]
    minutes = (time.monotonic() - begin) / 60
    print(f"\n{len(outcomes) - len(wrong)} of {len(outcomes)} right in {minutes:.0f} min; wrong: {wrong or 'none'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
