"""Faults between a client and an S3 server, planned by a seed: a package is published through them, and then again.

    python -m tests.publishing.faults --seeds 200        (make test-publish-long; about 6 minutes on 2 cores)

Each seed puts faults at some of the requests of a publication (or at one in ten of them), or kills the publishing
process at a byte of what it sends. In every third another package is there, which it is to replace. Whatever happens,
what can be seen is a whole package, the old or the new one. Then it is published once more without faults, and what
the server holds is compared, byte by byte. Counts by kind of fault: ../benchmarks/publish_faults.json.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3

from singer_ray.config import ExportConfig
from singer_ray.errors import UserError
from singer_ray.layout import MANIFEST
from singer_ray.publishing.packages.manifest import Manifest, write_manifest
from singer_ray.publishing.packages.store import Store
from tests.servers import CREDENTIALS, ENVIRONMENT, s3_server

KINDS = (
    "reset",
    "error_500",
    "slow_down_503",
    "silence",
    "lost_answer",
    "cut_up",
    "cut_down",
    "spoilt_up",
    "spoilt_down",
)
UPWARDS = ("cut_up", "spoilt_up")
"""Faults of what is sent."""
KILL, STORM = "kill", "storm"
STORM_SHARE = 0.1
PATIENCE = 1.0
"""Seconds that the client waits for an answer while there are faults."""
NAME = "search/students/1-003"


Fault = Callable[[int, int | None, str], str | None]
"""Number of a request, its number among those with a body or None, "METHOD /path" -> kind of fault, or None."""


class FaultyProxy:
    """An HTTP/1.1 proxy before `server` (host:port) that spoils the requests that `fault` names."""

    def __init__(self, server: str, fault: Fault = lambda number, put, target: None, seed: int = 0) -> None:
        self.server, self.fault, self.random = server, fault, random.Random(seed)
        self.requests, self.puts, self.sent, self.hit = 0, 0, 0, collections.Counter[str]()
        self.on_bytes: Callable[[int], None] = lambda total: None
        self.closed = threading.Event()
        self._lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> FaultyProxy:
        return self

    def __exit__(self, *error: object) -> None:
        self.closed.set()
        self.listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept
        self.listener.close()

    def _accept(self) -> None:
        while not self.closed.is_set():
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(60)
        with client, client.makefile("rb") as reader:
            try:
                while self._request(client, reader):
                    pass
            except OSError:
                pass

    def _request(self, client: socket.socket, reader: Any) -> bool:
        """Passes one request on; False when the connection is over."""
        line = reader.readline().decode("latin-1").split()
        if len(line) != 3:
            return False
        head = http.client.parse_headers(reader)
        with self._lock:
            length = int(head.get("Content-Length", 0))
            kind = self.fault(self.requests, self.puts if length else None, f"{line[0]} {line[1]}")
            if kind in UPWARDS and not length:
                kind = None  # there is nothing to spoil
            self.requests, self.puts = self.requests + 1, self.puts + (length > 0)
            if kind is not None:
                self.hit[kind] += 1
        if head.get("Expect", "").lower() == "100-continue":
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            del head["Expect"]
        if kind == "reset":
            self._read(reader, self.random.randint(0, length))
            return _reset(client)
        body = self._read(reader, length)
        if kind == "silence":
            time.sleep(3 * PATIENCE)
            return False
        if kind in ("error_500", "slow_down_503"):
            client.sendall(_answer(*{"error_500": (500, "InternalError"), "slow_down_503": (503, "SlowDown")}[kind]))
            return True
        if kind == "spoilt_up":
            body = self._spoilt(body)
        if kind == "cut_up":
            self._pass_half(line, head, body)
            return _reset(client)
        status, headers, answer = self._pass(line, head, body)
        if kind == "lost_answer":
            return _reset(client)
        if kind == "spoilt_down":
            answer = self._spoilt(answer)
        client.sendall(f"HTTP/1.1 {status} X\r\n{headers}\r\n".encode("latin-1"))
        if kind == "cut_down":
            client.sendall(answer[: len(answer) // 2])
            return _reset(client) if not answer else False
        client.sendall(answer)
        return True

    def _read(self, reader: Any, length: int) -> bytes:
        parts = []
        while length:
            part = reader.read1(min(length, 1 << 16))
            if not part:
                raise OSError("the client is gone")
            parts.append(part)
            length -= len(part)
            with self._lock:
                self.sent += len(part)
                total = self.sent
            self.on_bytes(total)
        return b"".join(parts)

    def _pass(self, line: list[str], head: Any, body: bytes) -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection(self.server, timeout=60)
        connection.putrequest(line[0], line[1], skip_host=True, skip_accept_encoding=True)
        for name, value in head.items():
            connection.putheader(name, value)
        connection.endheaders(body or None)
        response = connection.getresponse()
        answer = response.read()
        dropped = ("transfer-encoding", "connection", "content-length")
        headers = [f"{n}: {v}" for n, v in response.getheaders() if n.lower() not in dropped]
        length = response.getheader("Content-Length") if line[0] == "HEAD" else str(len(answer))
        connection.close()
        return response.status, "".join(f"{h}\r\n" for h in [*headers, f"Content-Length: {length or 0}"]), answer

    def _pass_half(self, line: list[str], head: Any, body: bytes) -> None:
        """The server gets half of the body, and then no more."""
        host, port = self.server.split(":")
        with socket.create_connection((host, int(port))) as server:
            text = f"{' '.join(line)}\r\n" + "".join(f"{n}: {v}\r\n" for n, v in head.items()) + "\r\n"
            server.sendall(text.encode("latin-1") + body[: len(body) // 2])

    def _spoilt(self, content: bytes) -> bytes:
        if not content:
            return content
        place = self.random.randrange(len(content))
        return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def _reset(client: socket.socket) -> bool:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    return False


def _answer(status: int, code: str) -> bytes:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>planned</Message></Error>".encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def make_package(folder: Path, seed: int, *, large: bool) -> Manifest:
    """A folder with the files of a package; `large` has one that is sent in parts."""
    rng = random.Random(seed)
    sizes = {
        "config.json": 900,
        "model.safetensors": 17 << 20 if large else 50_000,
        "README.md": 3000,
        "result.json": 6000,
        "pictures/norm_maps.png": 20_000,
    }
    for name, size in sizes.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(rng.randbytes(size))
    return write_manifest(folder)


def run_seed(server: str, seed: int) -> dict[str, Any]:
    """Publishes through faults, checks that nothing half is seen, publishes again, and compares what is there."""
    rng = random.Random(seed)
    plan = [*KINDS, KILL, STORM][seed % (len(KINDS) + 2)]
    bucket = f"seed-{seed}-{os.getpid()}"
    client = boto3.client("s3", endpoint_url=server, **CREDENTIALS)
    client.create_bucket(Bucket=bucket)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "1-003"
        manifest = make_package(folder, seed, large=seed % 5 == 0)
        host = server.removeprefix("http://")
        replaces, allowed = seed % 3 == 0, [manifest]
        if replaces:
            allowed.append(make_package(Path(made) / "old", seed + 1_000_000, large=False))
            Store(f"s3://{bucket}", server).put(Path(made) / "old", NAME)
        # A clean publication makes about 30 requests, 7 of them with a body; one that replaces another 55.
        planned = set(rng.sample(range(7 if plan in UPWARDS else 55 if replaces else 30), rng.randint(1, 3)))

        def fault(number: int, put: int | None, target: str) -> str | None:
            if plan == STORM:
                return rng.choice(KINDS) if rng.random() < STORM_SHARE else None
            return plan if plan != KILL and (put if plan in UPWARDS else number) in planned else None

        with FaultyProxy(host, fault, seed) as proxy:
            if plan == KILL:
                first = _publish_and_kill(proxy, folder, bucket, rng.randint(0, manifest.size), replaces)
            else:
                first = _publish(proxy.address, folder, bucket, PATIENCE, rng.choice((1, 2, 4)), replaces)
            hit = dict(proxy.hit) | ({KILL: 1} if first == "killed" else {})
        store = Store(f"s3://{bucket}", server)
        seen = store.find(NAME)
        if seen is not None:
            assert store.verify(NAME) in allowed, f"seed {seed}: a package is seen that is not whole"
        begin = time.perf_counter()
        Store(f"s3://{bucket}", server).put(folder, NAME, replace=replaces)
        seconds = time.perf_counter() - begin
        there = {
            o["Key"]: client.get_object(Bucket=bucket, Key=o["Key"])["Body"].read()
            for o in client.list_objects_v2(Bucket=bucket).get("Contents", [])
        }
        expected = {f"{NAME}/{name}": (folder / name).read_bytes() for name in (*manifest.files, MANIFEST)}
        assert there == expected, f"seed {seed} ({plan}): {sorted(there.keys() ^ expected.keys())} or a content differs"
        assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads"), f"seed {seed}: an upload is left over"
        assert not Store(f"s3://{bucket}", server).put(folder, NAME).new
    for key in there:
        client.delete_object(Bucket=bucket, Key=key)
    client.delete_bucket(Bucket=bucket)
    return {
        "plan": plan,
        "replaces": replaces,
        "hit": hit,
        "first": first,
        "seen_after_first": seen == manifest,
        "old_after_first": seen is not None and seen != manifest,
        "seconds": round(seconds, 2),
    }


def _publish(address: str, folder: Path, bucket: str, patience: float, attempts: int, replaces: bool) -> str:
    settings = ExportConfig(endpoint=address, timeout=patience, attempts=attempts)
    try:
        Store(f"s3://{bucket}", settings=settings, lease=20).put(folder, NAME, replace=replaces)
    except UserError:
        return "refused"
    return "published"


def _publish_and_kill(proxy: FaultyProxy, folder: Path, bucket: str, at_byte: int, replaces: bool) -> str:
    """In a process of its own, which is killed when it has sent `at_byte` bytes of content."""
    arguments = [sys.executable, "-m", "tests.publishing.faults", "--client", proxy.address, str(folder), bucket]
    arguments += ["--replace"] if replaces else []
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def on_bytes(total: int) -> None:
        if total >= at_byte:
            process.send_signal(signal.SIGKILL)

    proxy.on_bytes = on_bytes
    return "killed" if process.wait(timeout=300) == -signal.SIGKILL else "published"


def main() -> None:
    """Runs the seeds and keeps the counts."""
    from tests.benchmarks.children import write_raw

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--client", nargs=3)
    parser.add_argument("--replace", action="store_true")
    arguments = parser.parse_args()
    if arguments.client:
        address, folder, bucket = arguments.client
        print(_publish(address, Path(folder), bucket, 30.0, 4, arguments.replace))
        return
    os.environ.update(ENVIRONMENT)
    done = {}
    with s3_server() as server:
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            done[seed] = run_seed(server, seed)
            print(seed, done[seed], flush=True)
    path = Path(__file__).parents[1] / "benchmarks" / "publish_faults.json"
    write_raw(path, f"tests.publishing.faults --seeds {arguments.seeds}", summary(done))


def summary(done: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Counts over seeds, by what was planned."""
    found: dict[str, Any] = {}
    for plan in dict.fromkeys(seed["plan"] for seed in done.values()):
        own = [seed for seed in done.values() if seed["plan"] == plan]
        found[plan] = {
            "seeds": len(own),
            "faults": sum(sum(seed["hit"].values()) for seed in own),
            "first_attempt": dict(collections.Counter(seed["first"] for seed in own)),
            "replaced_another": sum(seed["replaces"] for seed in own),
            "new_after_first": sum(seed["seen_after_first"] for seed in own),
            "old_after_first": sum(seed["old_after_first"] for seed in own),
            "whole_after_second": len(own),
            "longest_second_seconds": max(seed["seconds"] for seed in own),
        }
    found["all"] = {"seeds": len(done), "faults": sum(entry["faults"] for entry in found.values())}
    return found


if __name__ == "__main__":
    main()
