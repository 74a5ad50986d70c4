"""Packages in folders: what disks and killed exports do to them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from singer_ray.errors import UserError
from singer_ray.publishing.packages.manifest import Manifest
from singer_ray.publishing.packages.store import Store
from tests.publishing.faults import make_package


def test_a_full_disk_leaves_nothing_half(package: Path, tmp_path: Path) -> None:
    """The process may write files of 10 kB, the weights have 50: what a full disk does, without filling one."""
    program = f"""
import resource, sys
from pathlib import Path
from singer_ray.errors import UserError
from singer_ray.publishing.packages.store import Store
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    Store({str(tmp_path / "target")!r}).put(Path({str(package)!r}), "search/x")
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "could not be written" in done.stdout
    assert "Free some space there" in done.stdout
    assert not [path for path in (tmp_path / "target").rglob("*") if path.is_file()]


@pytest.fixture
def sealed_folder() -> Iterator[Path]:
    """A folder that this process may not write to: not even as root, who then goes by another name."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        (Path(made) / "sealed").mkdir(mode=0o555)
        root = os.geteuid() == 0
        if root:
            os.setresuid(65534, 65534, 0)
        try:
            yield Path(made) / "sealed"
        finally:
            if root:
                os.setresuid(0, 0, 0)


def test_a_read_only_folder_is_named(sealed_folder: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be written: .*sealed is not a writable folder"):
        Store(str(sealed_folder / "target"))


def test_what_cannot_be_fetched_into_is_named(package: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    store.put(package, "x")
    for target in ("/proc/version/y", "/proc/x/y"):
        with pytest.raises(UserError, match="could not be written"):
            store.pull("x", Path(target))


def test_the_draft_of_a_killed_export_is_cleared(package: Path, tmp_path: Path) -> None:
    program = f"""
import os
from pathlib import Path
from singer_ray.publishing.packages.local_writer import drafting
with drafting(Path({str(tmp_path / "target" / "x")!r})) as draft:
    (draft / "model.safetensors").write_bytes(b"half")
    os._exit(1)
"""
    subprocess.run([sys.executable, "-c", program], check=False)
    (left,) = (tmp_path / "target").iterdir()
    machine = left.name.split(".")[2].partition("-")[0]
    another = left.with_name(left.name.replace(machine, "0" * 12))  # whether that one's process lives is not known here
    shutil.copytree(left, another)
    store = Store(str(tmp_path / "target"))
    assert store.packages() == []
    store.put(package, "x")
    assert sorted(path.name for path in (tmp_path / "target").iterdir()) == [another.name, "x"]


def test_a_replacement_that_was_cut_off_leaves_the_package_that_was_there(package: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "target"))
    store.put(package, "x")
    make_package(tmp_path / "other", 1, large=False)
    program = f"""
import os
from pathlib import Path
from singer_ray.publishing.packages import local_writer
from singer_ray.publishing.packages.store import Store
rename = Path.rename
def cut_off(self, target):
    if str(self).endswith(".draft"):
        os._exit(1)
    return rename(self, target)
Path.rename = cut_off
Store({store.address!r}).put(Path({str(tmp_path / "other")!r}), "x", replace=True)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 1
    assert not (tmp_path / "target" / "x").exists()
    assert not store.put(package, "x").new
    assert store.verify("x") == Manifest.of(package)
    assert store.put(tmp_path / "other", "x", replace=True).new
    assert store.verify("x") == Manifest.of(tmp_path / "other")
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["x"]


def test_foreign_files_are_not_taken_for_a_package(package: Path, tmp_path: Path) -> None:
    (tmp_path / "target" / "x").mkdir(parents=True)
    (tmp_path / "target" / "x" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="contains files but no package"):
        Store(str(tmp_path / "target")).put(package, "x")
    assert (tmp_path / "target" / "x" / "thesis.tex").exists()
