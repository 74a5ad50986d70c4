"""A Ray head of a test's own, as `ray start` makes it: other ports and another folder than any other on the machine."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import requests

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Head:
    """A running head."""

    dashboard: str
    """http://127.0.0.1:PORT."""
    address: str
    """For RAY_ADDRESS."""
    token: str
    """What the dashboard and every client must show."""


@contextmanager
def ray_head(cpus: int = 2) -> Iterator[Head]:
    """Starts a head that wants a token, and stops it with all its processes."""
    gcs, dashboard, agent, client = _free_ports(4)
    token = os.urandom(16).hex()
    # Sockets live in the folder, and their paths may have no more than 107 characters: no tmp_path.
    with TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token,
            # Jobs find `python` and the package where these tests do.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }
        options = [
            f"--num-cpus={cpus}",
            f"--port={gcs}",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={dashboard}",
            f"--dashboard-agent-listen-port={agent}",
            f"--ray-client-server-port={client}",
            f"--temp-dir={folder}",
        ]
        process = subprocess.Popen(
            [Path(sys.executable).with_name("ray"), "start", "--head", "--block", *options],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        head = Head(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}", token)
        try:
            _wait(head, process)
            yield head
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                for each in [*psutil.Process(process.pid).children(recursive=True), process]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        each.kill()  # asked politely they take half a minute
            process.wait()


def _wait(head: Head, process: subprocess.Popen[bytes]) -> None:
    headers = {"Authorization": f"Bearer {head.token}"}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(f"{head.dashboard}/api/version", headers=headers, timeout=5).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.2)
    raise RuntimeError("ray start --head did not come up")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
