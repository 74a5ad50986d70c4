"""The store on another S3-compatible server: s3rver, of npm, which knows no conditional writes.

    python -m tests.publishing.s3rver          (npm is needed; about a minute)

Packages are put, put again, compared, pulled, replaced and mended; then four exports of different packages to one place
at once, many times over. What held: ../benchmarks/s3rver.json.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3

from singer_ray.errors import UserError
from singer_ray.publishing.packages.manifest import Manifest
from singer_ray.publishing.packages.store import Store
from tests.benchmarks.children import write_raw
from tests.publishing.faults import make_package

ROUNDS, AT_ONCE = 25, 4
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "S3RVER", "AWS_SECRET_ACCESS_KEY": "S3RVER", "AWS_DEFAULT_REGION": "us-east-1"}
"""Those that s3rver knows."""


@contextlib.contextmanager
def served(place: Path) -> Iterator[tuple[str, str]]:
    """Installs and starts it: its address and version."""
    subprocess.run(["npm", "install", "--silent", "--prefix", str(place), "s3rver"], check=True)
    package = place / "node_modules" / "s3rver"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        "node",
        str(package / "bin" / "s3rver.js"),
        "-d",
        str(place / "data"),
        "-a",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    process = subprocess.Popen([*command, "--silent"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", json.loads((package / "package.json").read_text())["version"]
    finally:
        process.kill()
        process.wait()


def check_one(server: str, place: Path) -> None:
    """One export after the other."""
    store = Store("s3://packages/one", server)
    for name, large in (("small", False), ("large", True)):
        folder = place / name
        manifest = make_package(folder, len(name), large=large)
        assert store.put(folder, name).new
        assert not store.put(folder, name).new
        assert store.verify(name) == manifest
        store.pull(name, place / f"{name}-pulled")
        assert Manifest.of(place / f"{name}-pulled") == manifest
    other = make_package(place / "other", 99, large=False)
    with contextlib.suppress(UserError):
        store.put(place / "other", "small")
        raise AssertionError("another package was written over")
    assert store.put(place / "other", "small", replace=True).new
    assert store.verify("small") == other
    store.folder.write("small/model.safetensors", b"\0" * other.files["model.safetensors"].size)
    with contextlib.suppress(UserError):
        store.verify("small")
        raise AssertionError("a file that was spoilt was not found")
    assert store.put(place / "other", "small").new
    assert store.verify("small") == other


def check_at_once(server: str, place: Path) -> dict[str, int]:
    """Different packages for one address, all at once; how often which number of exports was told that it had won."""
    folders = [place / f"rival-{n}" for n in range(AT_ONCE)]
    manifests = [make_package(folder, 100 + n, large=False) for n, folder in enumerate(folders)]
    won: dict[str, int] = {}
    for number in range(ROUNDS):
        winners: list[int] = []

        def publish(n: int, number: int = number, winners: list[int] = winners) -> None:
            with contextlib.suppress(UserError):
                Store("s3://packages/at-once", server, lease=5).put(folders[n], str(number))
                winners.append(n)

        threads = [threading.Thread(target=publish, args=(n,)) for n in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert Store("s3://packages/at-once", server).verify(str(number)) in manifests, f"round {number}: a mixture"
        won[str(len(winners))] = won.get(str(len(winners)), 0) + 1
    return won


def main() -> None:
    """Checks, and keeps what held."""
    os.environ.update(CREDENTIALS)
    with tempfile.TemporaryDirectory() as made, served(Path(made)) as (server, version):
        boto3.client("s3", endpoint_url=server).create_bucket(Bucket="packages")
        check_one(server, Path(made))
        won = check_at_once(server, Path(made))
    found: dict[str, Any] = {"s3rver": version, "rounds": ROUNDS, "exports_at_once": AT_ONCE, "rounds_by_winners": won}
    print(json.dumps(found))
    write_raw(Path(__file__).parents[1] / "benchmarks" / "s3rver.json", "tests.publishing.s3rver", found)


if __name__ == "__main__":
    main()
