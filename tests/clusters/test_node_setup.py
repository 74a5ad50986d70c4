"""The commands in clusters/ do on a node what they should: run as Ray runs them, with stand-ins for the programs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from ray.autoscaler._private.command_runner import _with_environment_variables, _with_interactive
from ray.autoscaler._private.util import with_envs

from tests.clusters.cluster_files import AWS_FILES, FILES, load, provider_of

pytestmark = pytest.mark.slow

# Plays python3, uv, ray, sudo and sleep: notes each call, and leaves behind what the real one would.
STAND_IN = """#!/bin/bash
me=${0##*/}
echo "$me $*" >> ~/calls
case "$me $*" in
    "python3 -m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && [ ! -e ~/without_ensurepip ] ;;
    "sudo apt-get "*" install -y python3-venv") rm ~/without_ensurepip ;;
    "python -m pip install uv=="*) [ ! -e ~/without_ensurepip ] && cp "$0" "${0%/*}/uv" ;;
    "uv venv "*) mkdir -p "${!#}/bin" && cp "$0" "${!#}/bin/python" ;;
    "uv pip install "*" -r "*) cp "$0" "${4%/*}/ray" ;;
    "ray start "*) env > ~/environment; read -r left 2> /dev/null < ~/failures; echo "${left:1}" > ~/failures
        [ -z "$left" ] ;;
esac
"""
PLAYED = ("python3", "sudo", "sleep")
NEEDED = ("bash", "env", "mkdir", "chmod", "grep", "sed", "cp", "rm")

every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
every_aws_file = pytest.mark.parametrize("file", AWS_FILES, ids=lambda file: file.stem)


class Node:
    """A home folder with just enough programs in reach for a fresh machine."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def equip(self) -> None:
        programs = self.home / "programs"
        programs.mkdir(parents=True)
        for name in NEEDED:
            (programs / name).symlink_to(str(shutil.which(name)))
        for name in PLAYED:
            (programs / name).write_text(STAND_IN)
            (programs / name).chmod(0o755)
        # A login shell sets PATH anew. No newline at the end: set-up must not join its line to this one.
        (self.home / ".bashrc").write_text("export PATH=~/programs")
        (self.home / "singer_ray").mkdir()
        (self.home / "singer_ray" / "requirements.lock").write_text("uvicorn==0.1\nuv==1.2.3 \\\n    --hash=sha256:0\n")
        (self.home / ".ray").mkdir()
        (self.home / ".ray" / "auth_token").write_text("secret")

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command as Ray's launcher does over SSH."""
        return subprocess.run(
            ["bash", "-c", " ".join(_with_interactive(command))],
            env={"HOME": str(self.home), "PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
            timeout=60,
        )

    def set_up(self, file: Path) -> None:
        for command in load(file)["setup_commands"]:
            done = self.run(command)
            assert done.returncode == 0, f"{command!r}: {done.stderr}"

    def start(self, file: Path, role: str, node_type: str = "") -> int:
        """Runs the role's start commands with what Ray puts before them; returns the last one's exit status."""
        variables = {"RAY_enable_autoscaler_v2": "1"} if role == "head" else {"RAY_HEAD_IP": "192.0.2.10"}
        own = load(file)[f"{role}_start_ray_commands"]
        *stop, start = cast("list[str]", with_envs(own, {**variables, "RAY_NODE_TYPE_NAME": node_type}))
        for command in stop:
            assert self.run(command).returncode == 0
        # As from a machine whose user allows usage statistics.
        return self.run(_with_environment_variables(start, {"RAY_USAGE_STATS_ENABLED": 1})).returncode

    def fail_starts(self, times: int) -> None:
        (self.home / "failures").write_text("x" * times + "\n")

    def calls(self, beginning: str) -> list[str]:
        return [line for line in (self.home / "calls").read_text().splitlines() if line.startswith(beginning)]

    def environment(self) -> dict[str, str]:
        """What the started Ray would hand to its workers."""
        lines = (self.home / "environment").read_text().splitlines()
        return dict(line.partition("=")[::2] for line in lines if "=" in line)

    def files(self) -> dict[str, bytes]:
        """Everything that set-up left, without the notes of the stand-ins."""
        found = (path for path in self.home.rglob("*") if path.is_file() and path.name != "calls")
        return {str(path.relative_to(self.home)): path.read_bytes() for path in found}


@pytest.fixture
def fresh(tmp_path: Path) -> Node:
    node = Node(tmp_path / "home")
    node.equip()
    return node


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Node]:
    """Copies of a node that was set up with a file."""
    patterns: dict[Path, Node] = {}

    def copy(file: Path) -> Node:
        if file not in patterns:
            patterns[file] = Node(tmp_path_factory.mktemp("pattern") / "home")
            patterns[file].equip()
            patterns[file].set_up(file)
        home = tmp_path_factory.mktemp("node") / "home"
        shutil.copytree(patterns[file].home, home, symlinks=True)
        return Node(home)

    return copy


@every_file
def test_set_up_changes_nothing_the_second_time(file: Path, ready: Callable[[Path], Node]) -> None:
    node = ready(file)
    before = node.files()
    node.set_up(file)
    assert node.files() == before
    assert len(node.calls("uv venv")) == len(node.calls("python3 -m venv")) == 1
    assert node.calls("python -m pip install") == ["python -m pip install uv==1.2.3"]


@every_file
def test_later_commands_find_the_environment_first(file: Path, ready: Callable[[Path], Node]) -> None:
    node = ready(file)
    shutil.copy(node.home / "programs" / "python3", node.home / "programs" / "python")
    assert node.run("command -v python").stdout.strip() == str(node.home / ".singer_ray/venv/bin/python")


@every_file
def test_nobody_else_on_the_node_can_read_the_token(file: Path, fresh: Node) -> None:
    token = fresh.home / ".ray" / "auth_token"
    token.chmod(0o644)
    fresh.set_up(file)
    assert token.stat().st_mode & 0o777 == 0o600


@every_file
@pytest.mark.parametrize("role", ["head", "worker"])
def test_ray_starts_with_token_authentication_and_without_usage_statistics(
    file: Path, role: str, ready: Callable[[Path], Node]
) -> None:
    node = ready(file)
    assert node.start(file, role) == 0
    assert node.environment()["RAY_AUTH_MODE"] == "token"
    if role == "head":  # the head alone reports
        assert node.environment()["RAY_USAGE_STATS_ENABLED"] == "0"


@every_file
@pytest.mark.parametrize("role", ["head", "worker"])
def test_training_processes_are_not_held_to_one_thread(file: Path, role: str, ready: Callable[[Path], Node]) -> None:
    node = ready(file)
    assert node.run("echo $OMP_NUM_THREADS").stdout.strip() == "1", "Ray no longer sets it: drop the `unset`"
    assert node.start(file, role) == 0
    assert "OMP_NUM_THREADS" not in node.environment()


@every_file
def test_the_autoscaler_suits_the_provider(file: Path, ready: Callable[[Path], Node]) -> None:
    node = ready(file)
    assert node.start(file, "head") == 0
    wanted = "0" if provider_of(file) == "local" else "1"
    assert node.environment()["RAY_enable_autoscaler_v2"] == wanted


@every_file
def test_a_worker_joins_its_head_even_at_the_third_try(file: Path, ready: Callable[[Path], Node]) -> None:
    node = ready(file)
    node.fail_starts(2)
    assert node.start(file, "worker") == 0
    starts = node.calls("ray start")
    assert len(starts) == 3
    assert all("--address=192.0.2.10:6379" in start for start in starts)


@every_file
def test_a_worker_that_cannot_join_says_so(file: Path, ready: Callable[[Path], Node]) -> None:
    node = ready(file)
    node.fail_starts(9)
    assert node.start(file, "worker") != 0
    assert len(node.calls("ray start")) == 3


@every_aws_file
def test_an_image_without_pythons_venv_module_gets_it(file: Path, fresh: Node) -> None:
    (fresh.home / "without_ensurepip").touch()
    fresh.set_up(file)
    assert len(fresh.calls("sudo")) == 2
    assert fresh.start(file, "worker") == 0


@every_file
def test_a_node_that_has_uv_keeps_it(file: Path, fresh: Node) -> None:
    shutil.copy(fresh.home / "programs" / "sudo", fresh.home / "programs" / "uv")
    fresh.set_up(file)
    assert fresh.calls("python3") == []
    assert fresh.start(file, "head") == 0


@every_aws_file
def test_nccl_has_no_way_around_efa_where_there_is_efa(file: Path, ready: Callable[[Path], Node]) -> None:
    node = ready(file)
    assert node.start(file, "worker", node_type="gpu_spot") == 0
    assert "NCCL_NET" not in node.environment()
    assert node.start(file, "worker", node_type="gpu_efa") == 0
    assert node.environment()["NCCL_NET"] == "Libfabric"
    assert node.environment()["FI_PROVIDER"] == "efa"
