"""A real `python -m singer_ray.tune` process on a Ray cluster of its own, whose processes can be found and killed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import singer_ray

ROOT = Path(singer_ray.__file__).parents[1]
AGENTS = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}
Process = tuple[int, str]
"""(process id, its start time): a process id may be given again, the pair is not."""


class Session:
    """One driver and all that it started.

    Ray keeps its files in a folder of this session and RAY_ADDRESS is unset: the driver meets no other cluster.

    Args:
        arguments: of `python -m singer_ray.tune`.
        log: receives what the driver prints.
        environment: added to this process's.
        limits: a shell command to run before the driver, such as `ulimit -f 100`.
    """

    def __init__(
        self, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, *, limits: str = ""
    ) -> None:
        self.log = log
        self.begin = time.monotonic()
        self.ray = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: the path of a socket has 107 bytes
        own = {
            "RAY_TMPDIR": str(self.ray),
            "RAY_USAGE_STATS_ENABLED": "0",
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        command = [sys.executable, "-m", "singer_ray.tune", *arguments]
        if limits:
            command = ["bash", "-c", f'{limits}; exec "$@"', "bash", *command]
        with log.open("wb") as output:
            self.driver = subprocess.Popen(
                command,
                env={**inherited, **own, **(environment or {})},
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.seen: set[Process] = set()
        self.looked = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.look()
        for pid, _ in self.left():
            _kill(pid)
        if self.driver.poll() is None:
            self.driver.kill()
        self.driver.wait()
        shutil.rmtree(self.ray, ignore_errors=True)

    @property
    def text(self) -> str:
        """What the driver has printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def lines(self, pattern: str) -> list[str]:
        """The printed lines in which a regular expression is found."""
        return [line for line in self.text.splitlines() if re.search(pattern, line)]

    def wait_for(self, pattern: str, count: int = 1, limit: float = 1200.0) -> bool:
        """Waits until `count` lines have the pattern; False when the driver ended before."""
        end = time.monotonic() + limit
        while len(self.lines(pattern)) < count:
            if self.driver.poll() is not None:
                return len(self.lines(pattern)) >= count
            if time.monotonic() > end:
                raise TimeoutError(f"{self.log}: no {count} lines with {pattern!r} in {limit:g} s")
            time.sleep(0.02)
            self._look_at_times()
        return True

    def wait(self, limit: float = 1200.0) -> int | None:
        """The driver's exit status; None when it still runs after `limit` seconds."""
        end = time.monotonic() + limit
        while self.driver.poll() is None and time.monotonic() < end:
            self._look_at_times()
            time.sleep(0.1)
        return self.driver.poll()

    def _look_at_times(self) -> None:
        if time.monotonic() - self.looked > 0.5:
            self.look()

    def look(self) -> None:
        """Remembers the processes that are there now: a child whose parent died is nobody's child any more."""
        self.looked = time.monotonic()
        parents, starts = _processes()
        found = {self.driver.pid} | {pid for pid, start in self.seen if starts.get(pid) == start}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        self.seen |= {(pid, starts[pid]) for pid in found if pid in starts}

    def children(self) -> dict[int, str]:
        """Process id -> title of all that the driver started and that live."""
        self.look()
        return {pid: _title(pid) for pid, _ in self.left() if pid != self.driver.pid}

    def left(self) -> set[Process]:
        """Those of the session's processes that live, the driver included."""
        _, starts = _processes()
        return {(pid, start) for pid, start in self.seen if starts.get(pid) == start}

    def kill_driver(self) -> None:
        """SIGKILL, and nothing else: Ray's processes are left to find out."""
        self.look()
        self.driver.kill()
        self.driver.wait()

    def kill_one(self, title: str, limit: float = 300.0) -> str | None:
        """SIGKILL to a process with `title` in its name, once there is one: the name, or None if the driver ended."""
        end = time.monotonic() + limit
        while self.driver.poll() is None:
            for pid, name in self.children().items():
                if title in name:
                    _kill(pid)
                    return name
            if time.monotonic() > end:
                raise TimeoutError(f"no process with {title!r} in its name in {limit:g} s")
            time.sleep(0.02)
        return None

    def kill_cluster(self) -> int:
        """SIGKILL to every process but the driver; returns how many there were."""
        killed = 0
        while found := self.children():  # new ones may start while others fall
            for pid in found:
                _kill(pid)
            killed += len(found)
        return killed

    def leftovers(self, limit: float = 60.0) -> list[str]:
        """Names of the processes that outlive the driver by more than `limit` seconds.

        Two agents of Ray's are passed over: they take a minute to find that their cluster has gone, and do nothing.
        """
        end = time.monotonic() + limit
        while (found := {*self.children().values()} - AGENTS) and time.monotonic() < end:
            time.sleep(0.2)
        return sorted(" ".join(Path(word).name for word in title.split()[:2]) for title in found)


def started(arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Session:
    """A session with a Ray cluster. On a machine that is too busy Ray gives its own processes up: it is tried again.

    Raises RuntimeError when the driver ends for another reason.
    """
    for _ in range(3):
        session = Session(arguments, log, environment)
        if session.wait_for(" at a time"):
            return session
        with session:
            session.wait()
        if "timed out during startup" not in session.text:
            break
    raise RuntimeError(f"the search did not start: {session.text[-500:]}")


def _processes() -> tuple[dict[int, int], dict[int, str]]:
    """Parent and start time of every process that is alive (zombies are not)."""
    parents: dict[int, int] = {}
    starts: dict[int, str] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            fields = Path(f"/proc/{name}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] not in "ZX":
            parents[int(name)], starts[int(name)] = int(fields[1]), fields[19]
    return parents, starts


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
