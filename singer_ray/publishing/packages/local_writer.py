"""Packages written to a local folder: copied beside their place, compared, and renamed into it."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from singer_ray.errors import UserError
from singer_ray.layout import MANIFEST
from singer_ray.publishing.packages.manifest import Manifest, check_folder, entry_of
from singer_ray.storage import reason, sync, write_whole
from singer_ray.storage.lease import this_machine
from singer_ray.storage.local import locked

DRAFT, ASIDE = ".draft", ".aside"
"""Suffixes of folders that are still being filled, and of old packages moved aside for their successors."""


class LocalWriter:
    """Puts packages below `root` and removes them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(
        self, folder: Path, name: str, manifest: Manifest, holds: Callable[[], Manifest | None], *, replace: bool
    ) -> bool:
        """Copies the package in `folder` to `name` unless `holds` says that it is there; returns whether it did."""
        target = self.root / name
        with explained(str(target)):
            _recover(target)
            if self._stays(target, holds, replace=replace):
                return False
            with drafting(target) as draft:
                _fill(draft, folder, manifest)
                with locked(target.parent):  # from the look to the rename, or two exports would both succeed
                    if self._stays(target, holds, replace=replace):  # another export was faster
                        return False
                    _exchange(draft, target)
        return True

    def remove(self, name: str) -> None:
        """Removes the package `name`; for readers it disappears in one step."""
        target = self.root / name
        with explained(str(target)):
            aside = target.with_name(_draft_name(target, DRAFT))
            target.rename(aside)
            shutil.rmtree(aside)

    def _stays(self, target: Path, holds: Callable[[], Manifest | None], *, replace: bool) -> bool:
        """Whether the package is already there. Raises UserError when something else is (unless `replace`)."""
        there = holds()
        if there is not None:
            return all(
                (target / name).is_file() and (target / name).stat().st_size == entry.size
                for name, entry in there.files.items()
            )
        if target.is_dir() and any(target.iterdir()) and not replace:
            raise UserError(
                f"{target} contains files but no package. Give another address, or use --replace to remove them."
            )
        return False


def is_draft(name: str) -> bool:
    """Whether a folder of that name is not yet, or no longer, a package."""
    return name.endswith((DRAFT, ASIDE))


@contextmanager
def drafting(target: Path) -> Iterator[Path]:
    """Yields a folder beside `target` to fill and rename; it is always gone afterwards."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{glob.escape(target.name)}.*{DRAFT}"):
        if _left_behind(left.name):
            shutil.rmtree(left, ignore_errors=True)
    draft = target.with_name(_draft_name(target, DRAFT))
    draft.mkdir()
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Turns disk errors into UserErrors."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{where} could not be written: {reason(error)}") from error


def write_synced(path: Path, content: bytes) -> None:
    """Writes a file and waits until it is on the disk."""
    write_whole(path, content, synced=True)


def sync_folders(folder: Path) -> None:
    """Waits until a folder and all its subfolders are on the disk."""
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync(path)


def _fill(draft: Path, folder: Path, manifest: Manifest) -> None:
    for file, entry in manifest.files.items():
        (draft / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / file, draft / file)
        sync(draft / file)
        if entry_of(draft / file) != entry:
            check_folder(folder)  # raises UserError if it had changed before the copy
            raise UserError(f"{folder / file} was changed while it was copied. Publish again.")
    write_synced(draft / MANIFEST, manifest.to_bytes())
    sync_folders(draft)


def _exchange(draft: Path, target: Path) -> None:
    """Puts the draft in the place of the existing folder, which is restored if that fails."""
    aside = target.with_name(_draft_name(target, ASIDE))
    if target.exists():
        target.rename(aside)
    try:
        draft.rename(target)
    except OSError:
        _recover(target)
        raise
    sync(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _recover(target: Path) -> None:
    """Cleans up after an interrupted replacement: restores the old package if its place is empty, else removes it."""
    for aside in target.parent.glob(f".{glob.escape(target.name)}.*{ASIDE}"):
        if not target.exists():
            aside.rename(target)
        elif _left_behind(aside.name):
            shutil.rmtree(aside, ignore_errors=True)


def _draft_name(target: Path, end: str) -> str:
    return f".{target.name}.{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:12]}{end}"


def _machine() -> str:
    return hashlib.sha256(this_machine().encode()).hexdigest()[:12]


def _left_behind(draft: str) -> bool:
    """Whether a dead process of this machine left that draft; False for other machines, where nobody can tell."""
    machine, _, rest = Path(draft).stem.rpartition(".")[2].partition("-")
    if machine != _machine():
        return False
    try:
        os.kill(int(rest.partition("-")[0]), 0)
    except (ValueError, ProcessLookupError):
        return True
    except PermissionError:
        pass
    return False
