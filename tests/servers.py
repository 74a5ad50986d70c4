"""An S3 server as a process of its own: moto.

python -m tests.servers        serves on a free port of 127.0.0.1, and prints the address
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

CREDENTIALS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
"""For clients that take them as arguments."""
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What a client needs, the endpoint apart."""


@contextlib.contextmanager
def s3_server(*, conditions: bool = True) -> Iterator[str]:
    """An empty S3, in memory: the address of its endpoint. Without `conditions` it writes whatever they say."""
    command = [sys.executable, "-m", "tests.servers", *([] if conditions else ["--careless"])]
    root = Path(__file__).parents[1]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, f"the S3 server ended with {process.wait()} before it served"
        yield address
    finally:
        process.kill()
        process.wait()


CONDITIONS = {"HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"}


class Conditions:
    """moto looks whether a condition holds and writes in two steps; S3 promises that nobody comes between.

    The `careless` one heeds no conditions, as older S3-compatible servers do.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]], *, careless: bool) -> None:
        self.app, self.lock, self.careless = app, threading.Lock(), careless

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not environ.keys() & CONDITIONS:
            return self.app(environ, start_response)
        if self.careless:
            return self.app({k: v for k, v in environ.items() if k not in CONDITIONS}, start_response)
        if environ.get("CONTENT_LENGTH"):  # all of it first: a client that falls silent must not hold up the others
            environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        with self.lock:
            return list(self.app(environ, start_response))


def main() -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    app = Conditions(DomainDispatcherApplication(create_backend_app), careless="--careless" in sys.argv)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    print(f"http://127.0.0.1:{server.port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
