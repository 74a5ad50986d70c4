"""The job that a search becomes: its command, its files, and what is said when there is no cluster."""

from __future__ import annotations

import json
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

from singer_ray.cli import run_command
from singer_ray.errors import UserError
from singer_ray.nodes import submit as submits
from singer_ray.nodes.submit import apart, entrypoint, local_files, submit
from singer_ray.options.parsing import parse
from singer_ray.tune import COMMAND, main


def typed(*words: str) -> Mapping[str, Sequence[str]]:
    """Words of a command line of tune, as submit gets them."""
    return parse(COMMAND, words)[1].typed


def words(command: str) -> list[str]:
    """The arguments that a shell hands to `python`, in a home folder called /home/me."""
    told = subprocess.run(
        ["bash", "-c", f"python() {{ printf '%s\\n' \"$@\"; }}; {command}"],
        env={"HOME": "/home/me"},
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout.splitlines()


def test_arguments_reach_the_job_as_they_were_typed() -> None:
    objectives = ("--search.objectives", "val/miou:max", "student/parameters:min")
    options = typed("--trials", "3", *objectives, "--time_budget=60", "--overwrite", "--teacher.name=/a b/$HOME")
    assert words(entrypoint(options, "my search", {})) == [
        "-m",
        "singer_ray.tune",
        "--trials",
        "3",
        "--search.objectives",
        "val/miou:max",
        "student/parameters:min",
        "--time-budget",
        "60",
        "--overwrite",
        "--teacher.name",
        "/a b/$HOME",
        "--out",
        "/home/me/runs/my-search",
    ]


@pytest.mark.parametrize(
    ("given", "there"),
    [
        ("/data/out", "/data/out"),
        ("runs/a b", "/home/me/runs/a b"),
        ("~/x", "/home/me/x"),
        ("s3://bucket/x", "s3://bucket/x"),
    ],
)
def test_out_is_a_folder_that_outlives_the_job(given: str, there: str) -> None:
    for argv in (("--out", given, "--overwrite"), (f"--out={given}", "--overwrite")):
        assert words(entrypoint(typed(*argv), "x", {}))[2:] == ["--overwrite", "--out", there]


@pytest.mark.parametrize(
    ("argv", "there"),
    [
        (["--resume", "s3://bucket/x"], ["--resume", "s3://bucket/x", "--out", "/home/me/runs/x"]),
        (["--resume=s3://bucket/x", "--out=y"], ["--resume", "s3://bucket/x", "--out", "/home/me/y"]),
        (["--resume", "runs/x", "--trials", "9"], ["--resume", "/home/me/runs/x", "--trials", "9"]),
        (["--trials=9", "--resume", "/data/x"], ["--trials", "9", "--resume", "/data/x"]),
    ],
)
def test_a_search_goes_on_there_where_it_is(argv: list[str], there: list[str]) -> None:
    assert words(entrypoint(typed(*argv), "x", {}))[2:] == there


def test_files_of_this_machine_travel_with_the_job(tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("method.rank: {type: int, low: 4, high: 8}")
    options = typed("--preset", "demo", f"--space={space}", "--out", str(space))
    assert local_files(options) == {str(space): space}
    command = entrypoint(options, "x", {str(space): "space.yaml"})
    assert shlex.split(command)[3:] == ["--preset", "demo", "--space", "space.yaml", "--out", str(space)]


@pytest.mark.parametrize("joined", [True, False])
def test_passwords_reach_the_job_in_its_environment(joined: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command line stands in the dashboard, and in the logs of the cluster."""
    for name in ("SINGER_RAY_STUDY_URL", "PGPASSWORD"):
        monkeypatch.delenv(name, raising=False)
    study, endpoint = "postgresql://me:secret@db/x?sslmode=on", "http://key:secret@minio:9000"
    given = {"--search.study": study, "--export.endpoint": endpoint}
    argv = [w for name, value in given.items() for w in ([f"{name}={value}"] if joined else [name, value])]
    options, environment = apart(typed("--trials", "3", *argv))
    assert environment == {"SINGER_RAY_STUDY_URL": study, "AWS_ENDPOINT_URL": endpoint}
    told = entrypoint(options, "x", {})
    assert "secret" not in told
    assert "--search.study 'postgresql://me@db/x?sslmode=on' --export.endpoint http://key@minio:9000" in told
    monkeypatch.setenv("PGPASSWORD", "other")
    assert apart({"resume": ["s3://b/x"]}) == ({"resume": ["s3://b/x"]}, {"PGPASSWORD": "other"})


@pytest.mark.parametrize("address", [["--submit", "http://head:8265"], ["--submit=http://head:8265"]])
def test_the_command_hands_over_its_options_but_for_the_address(
    address: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handed: dict[str, Any] = {}
    monkeypatch.setattr(submits, "submit", lambda *given, **more: handed.update(given=given, **more) or "job-1")
    monkeypatch.setattr(submits, "follow", lambda *given: "SUCCEEDED")
    argv = [
        "--trials=3",
        *address,
        "--search.objectives",
        "val/miou:max",
        "val/loss:min",
        "--out",
        "~/x",
        "--overwrite",
    ]
    assert run_command(COMMAND, main, argv) == 0
    options = {"trials": ["3"], "search.objectives": ["val/miou:max", "val/loss:min"], "out": ["~/x"], "overwrite": []}
    assert handed["given"] == ("http://head:8265", options)
    assert (handed["name"], handed["metadata"]["experiment"], handed["metadata"]["trials"]) == ("x", "x", "3")
    assert capsys.readouterr().out.splitlines()[-1] == "job job-1: SUCCEEDED"


def test_an_address_without_a_cluster_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # Ray would prefer it to what was typed
    monkeypatch.setattr(submits, "YOUNG", 0)
    with pytest.raises(UserError, match=r"--submit http://127\.0\.0\.1:9: nothing answers there") as caught:
        submit("http://127.0.0.1:9", {}, name="x", metadata={})
    assert "\n" not in str(caught.value)


@pytest.fixture
def _token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of a user who has one, and has set nothing."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # so that what is set meanwhile is undone
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("t" * 32)
    AuthenticationTokenLoader.instance().reset_cache()
    yield
    AuthenticationTokenLoader.instance().reset_cache()


class Young(BaseHTTPRequestHandler):
    """A head that starts: first it hangs up, then it has no agent, then it takes the job and notes who asked."""

    asked = 0
    shown: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        type(self).asked += 1
        if self.asked < 3:
            self.connection.close()
            return
        self._answer(200, {"version": "4", "ray_version": "2", "ray_commit": "x", "session_name": "s"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).asked += 1
        self.shown.append(self.headers.get("Authorization"))
        if len(self.shown) < 3:
            self._answer(500, "No available agent to submit job, please try again later.")
        else:
            self._answer(200, {"job_id": "1", "submission_id": "taken"})

    def _answer(self, status: int, content: object) -> None:
        body = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.mark.usefixtures("_token")
def test_a_head_that_is_still_starting_is_waited_for_and_shown_the_token(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submits.YOUNG >= 60
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    server = HTTPServer(("127.0.0.1", 0), Young)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        assert submit(address, {}, name="x", metadata={}) == "taken"
    finally:
        server.shutdown()
        server.server_close()
    assert Young.shown == [f"Bearer {'t' * 32}"] * 3
    assert capsys.readouterr().out == f"nothing answers at {address} yet; trying for 60 s\n"
