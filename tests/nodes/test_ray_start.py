"""How a command comes by a cluster: what it says where there is none, and what it starts on this machine."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray._private import worker

from singer_ray.errors import UserError
from singer_ray.nodes import ray_start
from singer_ray.nodes.ray_start import _short_folder, brief_raylets, connected, protect_token, use_token_if_there
from tests.ray_head import ROOT

pytestmark = pytest.mark.ray


@pytest.fixture(autouse=True)
def _nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a token and settings of Ray."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def mute() -> Iterator[str]:
    """Where something listens that is no Ray."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def refused(address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray_start, "PATIENCE", 1.0)
    begin = time.monotonic()
    with pytest.raises(UserError) as caught, connected():
        raise AssertionError("connected to nothing")
    assert time.monotonic() - begin < 15
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_address_with_nothing_behind_it_is_said_soon(mute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ray_start.PATIENCE < 20
    for address in ("127.0.0.1:1", mute):
        said = refused(address, monkeypatch)
        assert said.startswith(f"RAY_ADDRESS is {address}: no Ray cluster has answered there for 1 s. Start one")


def test_an_address_that_is_none_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused("nowhere", monkeypatch).startswith("RAY_ADDRESS is 'nowhere': Invalid address format: nowhere. Give")


def test_a_cluster_that_ended_without_ray_stop_is_said_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(ray_start, "PATIENCE", 1.0)
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    with pytest.raises(UserError, match=r"no Ray cluster has answered there .* forget it with `ray stop`"), connected():
        raise AssertionError("connected to nothing")


def test_a_folder_too_deep_for_sockets_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert _short_folder() is None
    monkeypatch.setenv("TMPDIR", "/" + 60 * "x")
    assert _short_folder() == "/tmp/ray"
    monkeypatch.setattr(ray_start, "_SHORT", tmp_path / "gone")
    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.setenv(name, "/" + 60 * "x")
        with pytest.raises(
            UserError, match=rf"^{name} is /xxx.*: too long, .* Set RAY_TMPDIR to a folder of at most 36"
        ):
            _short_folder()


def test_a_token_is_closed_to_others_and_shown_unless_the_user_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # undone at the end, whatever is set meanwhile
    monkeypatch.delenv("RAY_AUTH_MODE")
    assert not use_token_if_there()
    assert "RAY_AUTH_MODE" not in os.environ
    file = tmp_path / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text("a" * 32)
    file.chmod(0o644)
    assert use_token_if_there()
    assert os.environ.pop("RAY_AUTH_MODE") == "token"
    assert file.stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert use_token_if_there()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    assert protect_token() == file


def test_a_machine_that_is_gone_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    state = "\n".join(f"    [state-dump] {n}" for n in range(20))
    reports = [
        f"Raylet is terminated. Termination is unexpected. Possible reasons include: (1) SIGKILL\n{state}",
        "The node with node id: 0f1 and address: 192.0.2.12 and node name: x has been marked dead because the detector "
        "has missed too many heartbeats from it. This can happen when a (1) raylet crashes\n\t(2) raylet has lagging",
        "A worker died or was killed while executing a task.\nTraceback (most recent call last):\n  File x",
    ]
    with brief_raylets():
        for report in reports:
            worker.print_to_stdstream({"lines": [report], "pid": "raylet", "is_err": False, "ip": "x"}, False)
        worker.print_to_stdstream({"lines": ["epoch 1", "epoch 2"], "pid": 7, "is_err": False, "ip": "x"}, False)
    said = [re.sub(r"^.*?\) ?", "", re.sub(r"\x1b\[\d+m", "", line)) for line in capsys.readouterr().out.splitlines()]
    assert said == [
        "a machine of the cluster is gone: 192.0.2.12",
        "A worker died or was killed while executing a task.",
        "epoch 1",
        "epoch 2",
    ]


STARTED = """
import json, os, psutil
from pathlib import Path
from singer_ray.nodes.ray_start import connected
with connected():
    import ray
    from ray._private.worker import _global_node
    session = Path(_global_node.get_session_dir_path())
    listening = {c.laddr.ip for p in psutil.Process().children(recursive=True) for c in p.net_connections("inet")
                 if c.status == "LISTEN"}
    token = Path("~/.ray/auth_token").expanduser()
    print(json.dumps({
        "session": str(session), "mode": oct(session.stat().st_mode)[-4:],
        "above": oct(session.parent.stat().st_mode)[-4:],
        "token": oct(token.stat().st_mode)[-4:], "listening": sorted(listening),
        "children": ray.get(ray.remote(lambda: os.umask(0o22)).remote()),
    }))
"""


def test_what_is_started_here_is_for_this_user_alone(tmp_path: Path) -> None:
    """Even where TMPDIR is too long for Ray."""
    deep = tmp_path / ("d" * 60)
    deep.mkdir()
    environment = {**os.environ, "HOME": str(tmp_path), "TMPDIR": str(deep), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", STARTED], env=environment, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["mode"], found["token"]) == ("0700", "0600")
    assert found["session"].startswith("/tmp/ray/session_")
    if Path("/tmp/ray").stat().st_uid == os.getuid():
        assert found["above"] == "1777"  # others have sessions there, and cannot touch ours
    assert {address.removeprefix("::ffff:") for address in found["listening"]} == {"127.0.0.1"}
    assert found["children"] == os.umask(os.umask(0o22))  # what a search writes is no secret
