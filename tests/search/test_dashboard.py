"""A submitted search, as its owner sees it: on the terminal that followed it, and in the dashboard."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import requests
from playwright.sync_api import Browser

from tests.conftest import SMALL
from tests.ray_head import Head, ray_head

pytestmark = pytest.mark.ray

NAME = "rank and rate"
LONG = {**SMALL, "train.epochs": 2000, "search.grace_epochs": 2000}
SUBMIT = """
import json, sys
from singer_ray.nodes.submit import submit
address, name, options = sys.argv[1:]
print(submit(address, json.loads(options), name=name, metadata={"space": "mine"}))
"""
FOLLOW = """
import sys
from singer_ray.errors import UserError
from singer_ray.nodes.submit import follow
try:
    print(follow(*sys.argv[1:]))
except UserError as error:
    sys.exit(str(error))
"""


@dataclass(frozen=True)
class Followed:
    """A search that runs on, and what its owner read until Ctrl-C."""

    submission_id: str
    log: str


def command(code: str, head: Head, *arguments: str, token: str | None = None) -> subprocess.Popen[str]:
    """Python code in a terminal of a user who has the cluster's token, or another one."""
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token or head.token}
    return subprocess.Popen(
        [sys.executable, "-c", code, head.dashboard, *arguments],
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as running:
        yield running


@pytest.fixture(scope="module")
def followed(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    folder = tmp_path_factory.mktemp("here")
    space = folder / "space.yaml"
    space.write_text("method.rank: {type: int, low: 4, high: 8}\ntrain.lr: {type: choice, values: [0.002, 0.004]}\n")
    settings = {name: [str(value)] for name, value in LONG.items()}
    options = {"space": [str(space)], "concurrent": ["1"], "out": [str(folder / "out")], **settings}
    told, failed = command(SUBMIT, head, NAME, json.dumps(options)).communicate(timeout=120)
    assert failed == ""
    submission_id = told.strip()
    assert submission_id.startswith("rank-and-rate-")
    terminal = command(FOLLOW, head, submission_id)
    assert terminal.stdout is not None
    lines = []
    for line in terminal.stdout:
        lines.append(line)
        if " epoch 1/2000: val/miou " in line:
            break
    terminal.send_signal(signal.SIGINT)
    rest, _ = terminal.communicate(timeout=60)
    assert terminal.returncode == 0
    yield Followed(submission_id, "".join(lines) + rest)
    headers = {"Authorization": f"Bearer {head.token}"}
    requests.post(f"{head.dashboard}/api/jobs/{submission_id}/stop", headers=headers, timeout=60).raise_for_status()


@pytest.mark.long
def test_ctrl_c_leaves_the_search_running_and_says_how_to_come_back(head: Head, followed: Followed) -> None:
    *log, hint, status = followed.log.splitlines()
    assert any(line.startswith("trial 000 started: method.rank") for line in log)
    assert hint == (
        f"The job goes on. Follow it: ray job logs --follow --address {head.dashboard} {followed.submission_id}   "
        f"Stop it: ray job stop --address {head.dashboard} {followed.submission_id}"
    )
    assert status == "RUNNING"


@pytest.mark.long
def test_the_dashboard_names_the_search_and_shows_what_its_trials_try(
    head: Head, followed: Followed, browser: Browser
) -> None:
    started = re.search(r"trial 000 started: method\.rank (\d+)  train\.lr (\S+)", followed.log)
    assert started is not None
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(f"{head.dashboard}/#/jobs")
    page.get_by_placeholder("Enter your authentication token").fill(head.token)
    page.get_by_role("button", name="Submit").click()
    row = page.get_by_role("row").filter(has_text=followed.submission_id)
    assert NAME in row.inner_text(timeout=60_000)
    assert "RUNNING" in row.inner_text()
    row.get_by_role("link").first.click()
    page.get_by_text('"space"').first.wait_for(timeout=60_000)
    page.goto(f"{head.dashboard}/#/actors")
    page.get_by_label("Class").first.fill("DistillationTrial")
    trial = page.get_by_role("row").filter(has_text="trial 000 ")
    assert f"trial 000 rank={started[1]} lr={started[2]}" in trial.inner_text(timeout=60_000)
    assert "ALIVE" in trial.inner_text()


@pytest.mark.long
def test_a_job_that_fails_is_said_in_one_line(head: Head) -> None:
    told, _ = command(SUBMIT, head, "broken", '{"trials": ["none"]}').communicate(timeout=120)
    follower = command(FOLLOW, head, told.strip())
    log, failed = follower.communicate(timeout=120)
    assert follower.returncode == 1
    assert "search.trials is 'none'. Allowed: a whole number" in log
    (line,) = failed.strip().splitlines()
    assert line.startswith(f"Job {told.strip()} failed: ")
    assert line.endswith(f"ray job logs --address {head.dashboard} {told.strip()}")


@pytest.mark.long
def test_a_wrong_token_is_said_in_one_line(head: Head) -> None:
    follower = command(FOLLOW, head, "any", token="0" * 32)
    _, failed = follower.communicate(timeout=120)
    assert follower.returncode == 1
    (line,) = failed.strip().splitlines()
    assert line.startswith(f"--submit {head.dashboard}: the cluster requires its token")
