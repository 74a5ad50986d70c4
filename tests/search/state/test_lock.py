"""The lock of a search's folder: no waiting, and none that outlives its process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from singer_ray.errors import UserError
from singer_ray.layout import LOCK
from singer_ray.search.state.lock import FolderLock, refuse_driven

HOLD = """
import sys, time
from pathlib import Path
from singer_ray.search.state.lock import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_another_process_is_refused_at_once_and_one_that_is_killed_holds_nothing(tmp_path: Path) -> None:
    out = tmp_path / "search"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            begin = time.monotonic()
            for attempt in (lambda: refuse_driven(out), FolderLock(out).__enter__):
                with pytest.raises(UserError, match=f"Another process drives the search in {out}. Watch it with"):
                    attempt()
            assert time.monotonic() - begin < 1.0
        finally:
            holder.kill()
    assert (out / LOCK).exists()
    refuse_driven(out)
    with FolderLock(out):
        pass
    assert out.exists(), "it was there before"
    assert not (out / LOCK).exists(), "nothing else was written"


def test_a_link_in_place_of_the_lock_is_refused_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link, which no search makes"):
        FolderLock(tmp_path).__enter__()
    assert not (tmp_path / "elsewhere").exists()
    (tmp_path / "elsewhere").write_text("mine")
    with pytest.raises(UserError, match="is a link, which no search makes"):
        refuse_driven(tmp_path)
    assert (tmp_path / "elsewhere").read_text() == "mine"
