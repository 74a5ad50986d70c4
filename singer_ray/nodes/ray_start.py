"""Gives a command its Ray cluster: connects to a running one, or starts one on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from singer_ray.errors import UserError, first_line, printable

NAMESPACE = "singer_ray"
PATIENCE = 15.0
"""Seconds in which a cluster must answer. Ray itself would try for a quarter of an hour."""
AUTH_MODE = "RAY_AUTH_MODE"
_LONGEST = 40
"""Bytes that the path of Ray's socket folder may have: a socket's path is limited to 107, and Ray adds up to 64."""
_TOKEN_FILE = Path("~/.ray/auth_token")
_SHORT = Path("/tmp")


@contextmanager
def connected(name: str | None = None) -> Iterator[None]:
    """Connects to the cluster of RAY_ADDRESS or of this machine, else starts one here; leaves what was there before.

    The dashboard's Jobs page shows `name`. Ray's usage statistics stay off unless RAY_USAGE_STATS_ENABLED says
    otherwise. Raises UserError when there is an address and nothing behind it.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.job_config import JobConfig

    if ray.is_initialized():
        yield
        return
    protect_token()
    address = os.environ.get("RAY_ADDRESS")
    # Ray Train's clean-up thread asks "which cluster?" and dies where it sees two, unless it is told.
    env = {"RAY_ADDRESS": address} if address else {}
    job = JobConfig(metadata={"job_name": name} if name else {})
    options: dict[str, Any] = {
        "namespace": NAMESPACE,
        "runtime_env": {"env_vars": env} if env else None,
        "logging_level": logging.ERROR,
        "job_config": job,
    }
    running = _running(address)
    if running is None:
        _start(options)
    else:
        _require_answer(running, address)
        _init(options, f"The Ray cluster at {address or f'{running} (this machine)'} cannot be reached")
    try:
        with brief_raylets():
            yield
    finally:
        ray.shutdown()


@contextmanager
def brief_raylets() -> Iterator[None]:
    """Within, reports of Ray's daemons are cut to a line each: of a lost machine they print the whole last state."""
    from ray._private import worker

    def brief(data: dict[str, Any], print_file: Any, ignore_prefix: bool = False) -> None:
        if data.get("pid") == "raylet":
            data = {**data, "lines": [line for line in map(_in_brief, data["lines"]) if line]}
        if data["lines"]:
            printing(data, print_file, ignore_prefix)

    printing = worker.print_worker_logs
    with _set(worker, "print_worker_logs", brief):
        yield


def _in_brief(message: str) -> str:
    """A daemon's report in one line; empty where another report says the same."""
    if "has been marked dead" in message:
        address = re.search(r"address: (\S+)", message)
        return f"a machine of the cluster is gone{f': {address[1]}' if address else ''}"
    if message.lstrip().startswith("Raylet is terminated"):
        return ""
    return printable(message.strip().splitlines()[0]) if message.strip() else ""


def use_token_if_there() -> bool:
    """Makes Ray present this user's token to clusters, unless RAY_AUTH_MODE says otherwise; returns whether it exists.

    It also makes ~/.ray/auth_token readable by this user alone.
    """
    file = protect_token()
    there = bool(os.environ.get("RAY_AUTH_TOKEN")) or file is not None
    if there and AUTH_MODE not in os.environ:
        from ray import _raylet

        os.environ[AUTH_MODE] = "token"
        _raylet.Config.initialize("")  # type: ignore[attr-defined]  # Ray read the environment when it was imported
    return there


def protect_token() -> Path | None:
    """The file that holds this user's token, closed to others; None where there is none."""
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or _TOKEN_FILE).expanduser()
    with contextlib.suppress(OSError):
        if file.stat().st_uid == os.getuid() and file.stat().st_mode & 0o077:
            file.chmod(0o600)
    return file if file.is_file() else None


def keep_keys_at_home() -> None:
    """Stops Ray Tune from handing this process's AWS keys to every trial: Ray writes what it hands on into its logs.

    Trials need no keys: hosts read and write the store, with the credentials of the machine that they are on.
    """
    from ray.tune.execution import class_cache

    class_cache.ENV_VARS_TO_PROPAGATE = {
        name for name in class_cache.ENV_VARS_TO_PROPAGATE if not name.startswith("AWS_")
    }


@contextmanager
def telling_train_which_cluster() -> Iterator[None]:
    """Within, Ray Train's own actors are told their cluster: where they see several, they would fail to choose.

    On a cluster that this process started itself nobody takes machines away: an actor that watches for it is left out.
    """
    import ray
    from ray._private import worker
    from ray.train.v2._internal import constants

    known: set[str] = constants.ENV_VARS_TO_PROPAGATE
    told = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    if worker._global_node is not None and worker._global_node.is_head():
        name = constants.ENABLE_PREEMPTION_WATCHER_ENV_VAR
        told[name] = os.environ.get(name, "0")
    before = {name: os.environ[name] for name in told if name in os.environ}
    os.environ.update(told)
    try:
        with _set(constants, "ENV_VARS_TO_PROPAGATE", {*known, "RAY_ADDRESS"}):
            yield
    finally:
        for name in told:
            del os.environ[name]
        os.environ.update(before)


def _running(address: str | None) -> str | None:
    """HOST:PORT of the cluster that Ray would connect to; None where it would start one."""
    from ray._private import services

    if address and "://" in address:
        return address
    try:
        return services.canonicalize_bootstrap_address(address or None)  # type: ignore[arg-type]
    except Exception as error:  # Ray raises many kinds, such as for a port that is none or a host that nobody knows
        raise UserError(
            f"RAY_ADDRESS is {printable(str(address))!r}: {printable(str(error)).rstrip('.')}. Give HOST:PORT of a "
            "running cluster, or unset it to run on this machine alone."
        ) from error


def _require_answer(running: str, address: str | None) -> None:
    """Raises UserError when nothing, or something other than Ray, answers at HOST:PORT."""
    if "://" in running:  # Ray's client has a limit of its own
        return
    import grpc  # type: ignore[import-untyped]
    from ray._private.grpc_utils import init_grpc_channel

    channel = init_grpc_channel(running)
    try:
        grpc.channel_ready_future(channel).result(timeout=PATIENCE)
    except grpc.FutureTimeoutError:
        whose = f"RAY_ADDRESS is {address}" if address else f"`ray start` was run on this machine, for {running}"
        raise UserError(
            f"{whose}: no Ray cluster has answered there for {PATIENCE:.0f} s. Start one with `ray start --head`, "
            + ("correct RAY_ADDRESS, or unset it" if address else "or forget it with `ray stop`,")
            + " to run on this machine alone."
        ) from None
    finally:
        channel.close()


def _start(options: dict[str, Any]) -> None:
    """Starts a cluster on this machine alone, which no other user can reach, read or write."""
    _make_token()
    with _private_to_this_user():
        _init({**options, "address": "local", "_temp_dir": _short_folder()}, "Ray cannot be started on this machine")
        _close_session()


def _init(options: dict[str, Any], problem: str) -> None:
    import ray

    try:
        try:
            ray.init(**options)
        except ray.exceptions.AuthenticationError:
            if AUTH_MODE in os.environ or not use_token_if_there():
                raise
            ray.init(**options)
    except Exception as error:  # Ray raises bare ones too, such as for a node that takes too long to start
        reason = printable(first_line(error))
        raise UserError(
            f"{problem}: {reason}. Start a cluster with `ray start --head`, correct RAY_ADDRESS, or unset it to run on "
            "this machine alone."
        ) from error


def _short_folder() -> str | None:
    """A folder for Ray's sockets where its default path is too long, else None. Raises UserError when none fits."""
    from ray._common.utils import get_default_ray_temp_dir

    default = get_default_ray_temp_dir()
    if len(os.fsencode(os.path.abspath(default))) <= _LONGEST:
        return None
    if not os.access(_SHORT, os.W_OK):
        name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
        raise UserError(
            f"{name} is {printable(str(Path(default).parent))}: too long, since the path of a Unix socket below it "
            f"may have 107 bytes, and {_SHORT} cannot be written. Set RAY_TMPDIR to a folder of at most "
            f"{_LONGEST - len('/ray')} characters."
        )
    return str(_SHORT / "ray")


def _make_token() -> None:
    """Creates the token that Ray would otherwise create readable by everybody."""
    if os.environ.get(AUTH_MODE, "token").lower() != "token" or os.environ.get("RAY_AUTH_TOKEN"):
        return
    if protect_token() is not None:
        return
    from ray._private.authentication.authentication_token_generator import generate_new_authentication_token

    file = _TOKEN_FILE.expanduser()
    if os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return  # Ray says that it is not there
    with contextlib.suppress(OSError):  # another process was faster, or Ray says what is wrong
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as handle:
            handle.write(generate_new_authentication_token())


@contextmanager
def _private_to_this_user() -> Iterator[None]:
    """What Ray starts within listens on loopback only, and its session's folder is closed to other users.

    By itself Ray listens on all interfaces, with its metrics even without a token, and opens its folders to everybody.
    """
    from ray._common import utils
    from ray._private import ray_constants

    with _set(ray_constants, "ENABLE_RAY_CLUSTER", False), _set(utils, "try_make_directory_shared", _close):
        yield


def _close_session() -> None:
    """Closes the folders again: Ray's daemons, which are processes of their own, have opened them as they started."""
    from ray._private import worker

    session = Path(worker._global_node.get_session_dir_path())  # type: ignore[attr-defined]
    for folder in (session, *(path for path in session.iterdir() if path.is_dir() and not path.is_symlink())):
        _close(str(folder))
    _close(str(session.parent))


def _close(folder: str) -> None:
    # The folder above the session is shared with other users (sticky): each can remove only their own sessions.
    with contextlib.suppress(PermissionError):
        os.chmod(folder, 0o700 if "session_" in folder else 0o1777)


@contextmanager
def _set(module: Any, name: str, value: Any) -> Iterator[None]:
    """Replaces a module's attribute for the block: Ray has no option for these."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
