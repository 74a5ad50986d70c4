"""Leases: whatever keeps them, one process at a time holds one."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from singer_ray.storage import Folder
from singer_ray.storage.lease import HeldError, Lease, LostError
from singer_ray.storage.protocol import LeaseFiles


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> LeaseFiles:
    """A store of each kind."""
    if request.param == "folder":
        return Folder(str(tmp_path)).store
    address, server = f"s3://{request.getfixturevalue('bucket')}/leases", request.getfixturevalue("server")
    return Folder(address, server).store


def of_another_machine(files: LeaseFiles, seconds: float = 2.0) -> Lease:
    lease = Lease(files, "x", seconds=seconds)
    lease.owner["machine"] = "another since-some-time"
    return lease


def test_files_are_written_under_their_conditions(files: LeaseFiles) -> None:
    assert files.look("x") is None
    assert not files.swap("x", b"0", "no-tag")
    assert files.create("x", b"1")
    assert not files.create("x", b"2")
    seen = files.look("x")
    assert seen is not None
    assert seen.content == b"1"
    assert -2 < seen.age < 5
    assert not files.swap("x", b"3", "no-tag")
    assert files.swap("x", b"3", seen.tag)
    assert not files.swap("x", b"4", seen.tag)
    again = files.look("x")
    assert again is not None
    assert again.content == b"3"
    files.delete(["x", "never-there"])
    assert files.look("x") is None


@pytest.mark.slow
def test_many_at_once_come_one_after_the_other(files: LeaseFiles) -> None:
    inside, most, done = 0, 0, 0
    counting = threading.Lock()

    def work() -> None:
        nonlocal inside, most, done
        with Lease(files, "x", seconds=10, patience=60) as lease:
            with counting:
                inside += 1
                most = max(most, inside)
            lease.check()
            time.sleep(0.05)
            with counting:
                inside -= 1
                done += 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, done) == (1, 6)
    assert files.look("x") is None


def test_a_holder_that_shows_life_is_named_at_once(files: LeaseFiles) -> None:
    said: list[float] = []
    with of_another_machine(files) as holder:
        begin = time.monotonic()
        with (
            pytest.raises(HeldError, match="held by a process on another"),
            Lease(files, "x", seconds=2.0, on_wait=said.append),
        ):
            pass
        assert time.monotonic() - begin < 5
        assert said == [2.0]
        holder.check()


@pytest.mark.slow
def test_a_holder_that_falls_silent_loses_it(files: LeaseFiles) -> None:
    left = of_another_machine(files)
    assert files.create("x", left.content)
    begin = time.monotonic()
    with Lease(files, "x", seconds=2) as lease:
        lease.check()
        assert 1 < time.monotonic() - begin < 20
        with pytest.raises(LostError):
            left.check()
    assert files.look("x") is None


def test_a_holder_that_wakes_too_late_learns_it_and_leaves_the_other_alone(files: LeaseFiles) -> None:
    with of_another_machine(files, seconds=1) as late:
        seen = files.look("x")
        assert seen is not None
        other = Lease(files, "x", seconds=60)
        assert files.swap("x", other.content, seen.tag)
        for _ in range(100):
            if late.lost:
                break
            time.sleep(0.1)
        with pytest.raises(LostError):
            late.check()
    other.check()


def test_a_process_of_this_machine_that_has_ended_holds_nothing(tmp_path: Path) -> None:
    program = f"""
from singer_ray.storage import Folder
from singer_ray.storage.lease import Lease
Lease(Folder({str(tmp_path)!r}).store, "x", seconds=600).__enter__()
import os; os._exit(1)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 1
    files = Folder(str(tmp_path)).store
    assert files.look("x") is not None
    begin = time.monotonic()
    with Lease(files, "x", seconds=600):
        assert time.monotonic() - begin < 5


def test_one_that_this_process_left_is_free(files: LeaseFiles) -> None:
    left = Lease(files, "x", seconds=600)
    files.create("x", left.content)
    left.clear()
    assert files.look("x") is None
    files.create("x", left.content)
    with Lease(files, "x", seconds=600) as lease:
        lease.check()


def test_one_that_was_spoilt_is_free(files: LeaseFiles) -> None:
    content = bytearray(of_another_machine(files).content)
    content[12] ^= 1
    files.create("x", bytes(content))
    with Lease(files, "x", seconds=600) as lease:
        lease.check()
        assert not lease.lost


def test_servers_that_know_no_conditions_are_read_back(tmp_path: Path) -> None:
    """Each write succeeds there; of two that believe to hold it, the one that was overwritten is told."""

    class Careless:
        def __init__(self) -> None:
            self.inner = Folder(str(tmp_path)).store
            self.look, self.delete = self.inner.look, self.inner.delete

        def create(self, name: str, content: bytes) -> bool:
            (tmp_path / name).write_bytes(content)
            return True

        def swap(self, name: str, content: bytes, tag: str) -> bool:
            return self.create(name, content)

    careless = Careless()
    with Lease(careless, "x", seconds=60) as first:
        second = of_another_machine(careless, 60)
        careless.create("x", second.content)  # it had looked before the first one wrote
        second.check()
        with pytest.raises(LostError):
            first.check()
    second.check()
