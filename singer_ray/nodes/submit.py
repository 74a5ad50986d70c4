"""Hands a search to a Ray cluster as a job: it runs on the head, even when this machine goes away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shlex
import shutil
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO
from urllib.parse import urlsplit

from singer_ray.errors import UserError, printable
from singer_ray.nodes.ray_start import use_token_if_there
from singer_ray.storage import STUDY_URL, without_password
from singer_ray.storage.address import expanded_as, is_folder

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

JOB_NAME = "job_name"
"""The key of a job's metadata that the dashboard's Jobs page shows as its name."""
YOUNG = 60
"""Seconds for which a cluster that has just been started may not answer, or not accept jobs yet."""
SECRET_OPTIONS = {"search.study": STUDY_URL, "export.endpoint": "AWS_ENDPOINT_URL"}
"""Options whose value may hold a password, and the variable by which a job is given it."""
HANDED_OVER = (STUDY_URL, "PGPASSWORD")
FILE_OPTIONS = ("space", "search.space", "preset")
"""Options whose value may be a file of this machine."""
Options = Mapping[str, Sequence[str]]
"""Values as they were typed, by the plain name of their option."""


def submit(address: str, options: Options, *, name: str, metadata: Mapping[str, str]) -> str:
    """Starts `python -m singer_ray.tune OPTIONS` on the head of the cluster whose dashboard is at `address`.

    Args:
        address: http://HEAD:8265. It is shown the token of RAY_AUTH_TOKEN or ~/.ray/auth_token, where there is one.
        options: of singer_ray.tune. They travel as they were typed, because paths, `~` and $VARIABLES in them are meant
            of the cluster; files of this machine travel with the job. A relative --out, or folder to --resume, is
            below the home folder there; without one it is ~/runs/NAME, because the job's own working folder goes with
            the job.
        name: of the search; the Jobs page shows it.
        metadata: further texts that the job carries.

    Returns the job's submission id, NAME and the time. Raises UserError when the cluster cannot be reached or refuses.
    """
    submission_id = f"{_plain(name)}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
    options, secret = apart(options)
    with _client(address, YOUNG) as client, tempfile.TemporaryDirectory() as folder:
        shipped: dict[str, str] = {}
        for number, (value, path) in enumerate(local_files(options).items()):
            shipped[value] = f"{number}-{path.name}" if path.name in shipped.values() else path.name
            shutil.copy(path, Path(folder) / shipped[value])
        with _said_in_one_line(address, "does not accept the job"):
            begin = time.monotonic()
            while True:
                try:
                    return client.submit_job(
                        entrypoint=entrypoint(options, name, shipped),
                        submission_id=submission_id,
                        runtime_env=({"working_dir": folder} if shipped else {})
                        | ({"env_vars": secret} if secret else {}),
                        metadata={JOB_NAME: name, **metadata},
                    )
                except RuntimeError as error:
                    if "No available agent" not in str(error) or time.monotonic() - begin > YOUNG:
                        raise
                    time.sleep(1)


def follow(address: str, submission_id: str, out: TextIO | None = None) -> str:
    """Prints the log of a job until it ends, and returns SUCCEEDED or STOPPED.

    Ctrl-C leaves the job running: it says how to follow or stop it, and returns the status of that moment. Raises
    UserError when the job failed or the cluster is gone.
    """
    out = out or sys.stdout
    with _client(address) as client, _said_in_one_line(address, f"lost job {submission_id}"):
        try:
            shown = 0
            while not (info := client.get_job_info(submission_id)).status.is_terminal():
                shown = asyncio.run(_tail(client, submission_id, shown, out))
            print(client.get_job_logs(submission_id)[shown:], end="", file=out, flush=True)
        except KeyboardInterrupt:
            print(f"\nThe job goes on. {how_to(address, submission_id)}", file=out, flush=True)
            return str(client.get_job_status(submission_id).value)
    if info.status.value == "FAILED":
        why = str(info.message or "no reason given").splitlines()[0].partition(", last available logs")[0]
        raise UserError(
            f"Job {submission_id} failed: {why.rstrip('.')}. Its log: "
            f"{shlex.join(['ray', 'job', 'logs', '--address', address, submission_id])}"
        )
    return str(info.status.value)


def how_to(address: str, submission_id: str) -> str:
    """How to come back to a job and how to end it, in one line."""
    place = ["--address", address, submission_id]
    logs, stop = (shlex.join(["ray", "job", *words, *place]) for words in (["logs", "--follow"], ["stop"]))
    return f"Follow it: {logs}   Stop it: {stop}"


def local_files(options: Options) -> dict[str, Path]:
    """The files of this machine that options of singer_ray.tune name, by the values that name them."""
    named = [value for option in FILE_OPTIONS for value in options.get(option, ())]
    paths = {value: Path(expanded_as(value, "a file to send with the job")) for value in named}
    return {value: path for value, path in paths.items() if path.is_file()}


def apart(options: Options) -> tuple[Options, dict[str, str]]:
    """Options without passwords, which everybody on the cluster could read, and the variables that hold them instead.

    The job gets the passwords that this process knows: those of the options, PGPASSWORD and SINGER_RAY_STUDY_URL.
    """
    secret = {name: os.environ[name] for name in HANDED_OVER if os.environ.get(name)}
    for option, variable in SECRET_OPTIONS.items():
        for value in options.get(option, ()):
            if without_password(value) != value:
                secret[variable] = value
    clean = {
        option: [without_password(value) if option in SECRET_OPTIONS else value for value in values]
        for option, values in options.items()
    }
    return clean, secret


def entrypoint(options: Options, name: str, shipped: Mapping[str, str]) -> str:
    """The shell command of the job. `shipped` maps values of `options` to file names in the job's working folder."""
    words = ["python", "-m", "singer_ray.tune"]
    for option, values in options.items():
        if option == "out":
            continue
        words.append(f"--{option if '.' in option else option.replace('_', '-')}")
        if option == "resume":
            words += map(_folder, values)
        else:
            sent = [shipped.get(value, value) for value in values] if option in FILE_OPTIONS else values
            words += map(shlex.quote, sent)
    out = options.get("out") or ([] if any(map(is_folder, options.get("resume", ()))) else [f"runs/{_plain(name)}"])
    return " ".join([*words, "--out", *map(_folder, out)] if out else words)


def _folder(out: str) -> str:
    """--out as a shell word; a relative one is below the home folder of the machine that runs it."""
    if not is_folder(out) or out.startswith(("/", "$", "file:")):
        return shlex.quote(out)
    return f'"$HOME"/{shlex.quote(out.removeprefix("~/"))}'


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.") or "search"


async def _tail(client: JobSubmissionClient, submission_id: str, shown: int, out: TextIO) -> int:
    """Prints what comes after the first `shown` characters of a job's log, until the connection ends."""
    read = 0
    async for text in client.tail_job_logs(submission_id):
        new = text[max(shown - read, 0) :]
        read += len(text)
        print(new, end="", file=out, flush=True)
    if read <= shown:
        await asyncio.sleep(1)  # it has not begun, or was cut off
    return max(read, shown)


@contextlib.contextmanager
def _client(address: str, patience: float = 0.0) -> Iterator[JobSubmissionClient]:
    """Raises UserError when nothing answers within `patience` seconds."""
    use_token_if_there()
    import ray.job_submission  # noqa: F401 (before the lines below: it sets the levels of its own loggers)

    for chatty in ("dashboard.modules.job.sdk", "dashboard.modules.dashboard_sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{chatty}").setLevel(logging.WARNING)  # lines about packages and sockets
    # Ray prefers these to the address that it is given.
    hidden = {key: os.environ.pop(key) for key in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS") if key in os.environ}
    try:
        with _said_in_one_line(address, "cannot be used"):
            client = _connect(address, patience)
        yield client
    finally:
        os.environ.update(hidden)


def _connect(address: str, patience: float) -> JobSubmissionClient:
    from ray.job_submission import JobSubmissionClient

    parts = urlsplit(address)
    host = parts.hostname
    if parts.scheme not in ("http", "https") or host is None:
        raise UserError(
            f"--submit {printable(address)} is not the address of a dashboard. Give http://HEAD:8265; `ray dashboard "
            "CLUSTER.yaml` brings it to http://localhost:8265."
        )
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:  # no head that is still starting
        raise UserError(
            f"--submit {printable(address)}: the host {printable(str(host))!r} is not known. Give the address of the "
            "cluster's dashboard, usually http://HEAD:8265."
        ) from error
    begin, told = time.monotonic(), False
    while True:
        try:
            return JobSubmissionClient(address)
        except ConnectionError:
            if time.monotonic() - begin >= patience:
                raise
            if not told:
                print(f"nothing answers at {printable(address)} yet; trying for {patience:.0f} s", flush=True)
            told = True
            time.sleep(1)


@contextlib.contextmanager
def _said_in_one_line(address: str, what: str) -> Iterator[None]:
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise UserError(
            f"--submit {address}: the cluster requires its token and was given none, or a wrong one. Copy what "
            "`ray get-auth-token` prints on the head into ~/.ray/auth_token, or set RAY_AUTH_TOKEN to it"
            + (", and unset RAY_AUTH_MODE." if os.environ.get("RAY_AUTH_MODE", "token") != "token" else ".")
        ) from error
    except ConnectionError as error:
        raise UserError(
            f"--submit {address}: nothing answers there. Give the address of the cluster's dashboard, usually "
            "http://HEAD:8265; `ray dashboard CLUSTER.yaml` brings it to http://localhost:8265."
        ) from error
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"--submit {address}: the cluster {what}: {_line(error)}") from error


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300].rstrip(".")
