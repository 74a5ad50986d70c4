"""Packages in a local folder or in S3: put, found again, checked and fetched, each whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from singer_ray.errors import UserError
from singer_ray.publishing.manifest import MANIFEST, Entry, Manifest, check_folder, entry_of, read_manifest
from singer_ray.storage import Folder, reason
from singer_ray.storage.lease import HeldError, Lease, LostError
from singer_ray.storage.s3 import Bucket, with_retries

if TYPE_CHECKING:
    from singer_ray.config import ExportConfig

DRAFT = ".draft"
AT_A_TIME = 4
"""Files of a package that are sent or read at a time."""
LEASE = 120.0
"""Seconds after which the right to write a package has lapsed when nobody renews it."""


@dataclass(frozen=True)
class Published:
    """A package at its address."""

    address: str
    new: bool
    """False when it was there already."""
    size: int
    """Bytes."""

    def __str__(self) -> str:
        return self.address


class Store:
    """A local folder or `s3://bucket/prefix` that holds packages: folders with a MANIFEST.json, which is written last.

    Args:
        settings: endpoint, encryption, storage class, tags, attempts, timeout.
        lease: seconds after which the right to write a package lapses when nobody renews it.
        writable: whether packages will be put.

    Raises UserError for an address that cannot be used.
    """

    def __init__(
        self,
        address: str,
        endpoint: str | None = None,
        *,
        settings: ExportConfig | None = None,
        knob: str = "export.to",
        lease: float = LEASE,
        writable: bool = True,
    ) -> None:
        from singer_ray.config import ExportConfig

        self.settings = (settings or ExportConfig()).model_copy(update={"endpoint": endpoint} if endpoint else {})
        self.lease = lease
        self.folder = Folder(
            address, self.settings.endpoint, knob=knob, timeout=self.settings.timeout, writable=writable
        )
        self.address = self.folder.address
        self.bucket = None if self.folder.is_local else Bucket(self.folder, self.settings)
        if self.bucket is not None:
            self.bucket.check()

    def put(self, folder: Path, name: str, *, replace: bool = False) -> Published:
        """Brings the package in `folder` to ADDRESS/`name`; nothing is sent when it is there already.

        Every file is read back and compared; the manifest comes last. Raises UserError when `folder` is no whole
        package, another one is there (unless `replace`), or it cannot be written.
        """
        manifest = _quick_check(folder)
        if self._holds(name, manifest, replace=replace):
            if self.bucket is not None:
                self._claim(self.bucket, name).clear()
            return Published(f"{self.address}/{name}", False, manifest.size)
        if self.bucket is None:
            new = self._put_local(folder, name, manifest, replace=replace)
        else:
            new = self._put_s3(self.bucket, folder, name, manifest, replace=replace)
        return Published(f"{self.address}/{name}", new, manifest.size)

    def find(self, name: str) -> Manifest | None:
        """The manifest of the package ADDRESS/`name`; None when there is no package, or a broken manifest."""
        content = self._read(f"{name}/{MANIFEST}" if name else MANIFEST)
        try:
            return None if content is None else Manifest.parse(content, f"{self.address}/{name}/{MANIFEST}")
        except UserError:
            return None

    def packages(self, below: str = "") -> list[str]:
        """The names of all packages below ADDRESS, or below its folder `below`; "" is ADDRESS itself."""
        found = with_retries(self.settings.attempts, lambda: self.folder.names(below))
        names = [name.removesuffix(MANIFEST).rstrip("/") for name in found if f"/{name}".endswith(f"/{MANIFEST}")]
        return [name for name in names if not any(part.endswith(DRAFT) for part in name.split("/"))]

    def verify(self, name: str) -> Manifest:
        """Compares every file of ADDRESS/`name` with its manifest. Raises UserError for the first fault."""
        manifest = self._required(name)
        inner = self.folder.below(name) if name else self.folder

        def read(file: str) -> Entry | None:
            found = None
            for _ in range(2):  # what was spoilt on its way here is read right the second time
                size_and_hash = self._digest(f"{name}/{file}" if name else file)
                found = None if size_and_hash is None else Entry(*size_and_hash)
                if found == manifest.files[file]:
                    break
            return found

        with ThreadPoolExecutor(AT_A_TIME) as pool:
            found = dict(zip(manifest.files, pool.map(read, manifest.files)))
        fault = manifest.fault({file: entry for file, entry in found.items() if entry is not None})
        if fault:
            raise UserError(f"{inner.address} is not whole: {fault}. Publish it again with --replace.")
        return manifest

    def pull(self, name: str, target: Path) -> Manifest:
        """Fetches the package ADDRESS/`name` into the new folder `target`, checked. Raises UserError."""
        manifest = self._required(name)
        inner = self.folder.below(name) if name else self.folder
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UserError(f"{target} is there already. Give a new folder.")

        def fetch(file: str) -> None:
            for _ in range(self.settings.attempts):
                found = self._fetch(f"{name}/{file}" if name else file, draft / file)
                if found is not None and Entry(*found) == manifest.files[file]:
                    return
            raise UserError(f"{inner.address}/{file} does not fit its manifest. Publish the package again: --replace.")

        with _drafting(target) as draft:
            with ThreadPoolExecutor(AT_A_TIME) as pool:
                list(pool.map(fetch, manifest.files))
            _write(draft / MANIFEST, manifest.to_bytes())
            check_folder(draft)
            _sync_folders(draft)
            draft.rename(target)
        return manifest

    def write_listing(self, name: str, content: Callable[[], bytes]) -> None:
        """Writes a file that lists others, until what is there is what `content` gives.

        So of several that write one listing at a time the last one leaves it complete. Raises UserError.
        """
        for _ in range(2 * self.settings.attempts):
            wanted = content()
            if self._read(name) == wanted:
                return
            if self.bucket is None:
                self.folder.write(name, wanted)
            else:
                self.bucket.put_bytes(name, wanted, hashlib.sha256(wanted).hexdigest())
        raise UserError(f"{self.address}/{name} does not stay as it is written. Publish again.")

    def write(self, name: str, content: bytes) -> None:
        """Writes a file that belongs to no package, over an earlier one, and reads it back. Raises UserError."""
        self.write_listing(name, lambda: content)

    def read(self, name: str) -> bytes | None:
        """The content of a file, None when there is none. Raises UserError."""
        return self._read(name)

    def folders(self, below: str = "") -> list[str]:
        """The names of the folders right in ADDRESS, or in its folder `below`. Raises UserError."""
        found = with_retries(self.settings.attempts, lambda: self.folder.folders(below))
        return [name for name in found if not name.endswith(DRAFT)]

    def remove(self, name: str) -> None:
        """Removes the package ADDRESS/`name`, its manifest first. Raises UserError."""
        if self.bucket is None:
            path = Path(self.folder.root) / name
            with _explained(f"{self.address}/{name}"):
                aside = path.with_name(_draft_name(path))
                path.rename(aside)
                shutil.rmtree(aside)
            return
        with self._claimed(self.bucket, name):
            self.bucket.delete([f"{name}/{MANIFEST}"])
            self.bucket.delete(self._names(name))

    def _holds(self, name: str, manifest: Manifest, *, replace: bool) -> bool:
        """Whether the package is there, with all its files. Raises UserError when another one is (unless `replace`)."""
        there = self.find(name)
        if there is None:
            return False
        if there.digest != manifest.digest:
            if there.student == manifest.student and there.formats >= manifest.formats and not replace:
                manifest = there  # the same student with another card: what is published stays
            elif not replace:
                raise UserError(
                    f"{self.address}/{name} holds another package ({there.digest[:12]}..., not "
                    f"{manifest.digest[:12]}...). Use --replace to put this one in its place, or give another address."
                )
            else:
                return False
        sizes = with_retries(self.settings.attempts, lambda: self.folder.below(name).sizes())
        return all(sizes.get(file) == entry.size for file, entry in manifest.files.items())

    def _put_local(self, folder: Path, name: str, manifest: Manifest, *, replace: bool) -> bool:
        target = Path(self.folder.root) / name
        if target.exists() and self.find(name) is None and not replace and any(target.iterdir()):
            raise UserError(
                f"{self.address}/{name} holds files, but no package. Give another address, or use --replace to remove "
                "them."
            )
        with _explained(f"{self.address}/{name}"), _drafting(target) as draft:
            for file, entry in manifest.files.items():
                (draft / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / file, draft / file)
                _sync(draft / file)
                if entry_of(draft / file) != entry:
                    check_folder(folder)  # says so when it was changed before
                    raise UserError(f"{folder / file} was changed while it was copied. Publish again.")
            _write(draft / MANIFEST, manifest.to_bytes())
            _sync_folders(draft)
            aside = target.with_name(_draft_name(target))
            if target.exists() and any(target.iterdir()):
                if self._holds(name, manifest, replace=replace):
                    return False  # another export was faster
                target.rename(aside)
            draft.rename(target)
            _sync(target.parent)
            shutil.rmtree(aside, ignore_errors=True)
        return True

    def _put_s3(self, bucket: Bucket, folder: Path, name: str, manifest: Manifest, *, replace: bool) -> bool:
        for _ in range(self.settings.attempts):
            with suppress(LostError), self._claimed(bucket, name) as claim:
                return self._put_claimed(bucket, folder, name, manifest, claim, replace=replace)
        raise UserError(
            f"{self.address}/{name} was taken over by other exports, {self.settings.attempts} times. Publish again."
        )

    def _put_claimed(
        self, bucket: Bucket, folder: Path, name: str, manifest: Manifest, claim: Lease, *, replace: bool
    ) -> bool:
        """Raises LostError when another export has taken over."""
        if self._holds(name, manifest, replace=replace):
            return False  # another export was faster
        bucket.delete([f"{name}/{MANIFEST}"])
        bucket.abort_uploads(name)
        sizes = with_retries(self.settings.attempts, lambda: self.folder.below(name).sizes())

        def send(file: str) -> None:
            self._send(bucket, folder / file, f"{name}/{file}", manifest.files[file], sizes.get(file), claim)

        with ThreadPoolExecutor(AT_A_TIME) as pool:
            list(pool.map(send, manifest.files))
        bucket.delete([f"{name}/{file}" for file in sizes if file not in manifest.files])
        self._seal(bucket, f"{name}/{MANIFEST}", manifest.to_bytes(), claim)
        return True

    def _send(self, bucket: Bucket, path: Path, name: str, entry: Entry, there: int | None, claim: Lease) -> None:
        """Sends a file and reads it back, until it is there as it should be; an earlier upload's is kept."""
        for attempt in range(self.settings.attempts):
            if attempt or there != entry.size:
                claim.check()
                bucket.put(name, path, entry.sha256)
            found = self._digest(name)
            if found is not None and Entry(*found) == entry:
                return
            if entry_of(path) != entry:
                raise UserError(
                    f"{path} was changed after its {MANIFEST} was written. Restore it; or remove {MANIFEST} to publish "
                    "the folder as it is now."
                )
        raise UserError(f"{self.address}/{name} arrives damaged, {self.settings.attempts} times. Check the connection.")

    def _seal(self, bucket: Bucket, name: str, content: bytes, claim: Lease) -> None:
        for _ in range(self.settings.attempts):
            claim.check()
            written = bucket.put_bytes(name, content, hashlib.sha256(content).hexdigest(), IfNoneMatch="*")
            found = self._read(name)
            if found == content:
                return
            if not written and found is not None and self.find(name.removesuffix(f"/{MANIFEST}")) is not None:
                raise LostError  # another export has written its manifest meanwhile
            bucket.delete([name])  # spoilt on its way
        raise UserError(f"{self.address}/{name} arrives damaged, {self.settings.attempts} times. Check the connection.")

    def _claim(self, bucket: Bucket, name: str) -> Lease:
        return Lease(bucket, f"{name}.claim", seconds=self.lease, patience=2 * self.lease)

    @contextmanager
    def _claimed(self, bucket: Bucket, name: str) -> Iterator[Lease]:
        """The right to write the package `name`: of several exports at once, one writes at a time."""
        with ExitStack() as stack:
            try:
                claim = stack.enter_context(self._claim(bucket, name))
            except HeldError as error:
                raise UserError(
                    f"{self.address}/{name} is being written by another export, on {error.machine}. Wait for it to "
                    "end, and publish again."
                ) from error
            yield claim

    def _required(self, name: str) -> Manifest:
        where = f"{self.address}/{name}".rstrip("/")
        content = self._read(f"{name}/{MANIFEST}" if name else MANIFEST)
        if content is None:
            raise UserError(f"{where} has no {MANIFEST}: there is no whole package. Publish it again.")
        return Manifest.parse(content, f"{where}/{MANIFEST}")

    def _digest(self, name: str) -> tuple[int, str] | None:
        read = self.folder.digest if self.bucket is None else self.bucket.digest
        return with_retries(self.settings.attempts, lambda: read(name))

    def _fetch(self, name: str, path: Path) -> tuple[int, str] | None:
        def fetch() -> tuple[int, str] | None:
            if self.bucket is None:
                return self.folder.fetch(name, path)
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as target:
                return self.bucket.digest(name, target.write)

        return with_retries(self.settings.attempts, fetch)

    def _names(self, name: str) -> list[str]:
        return with_retries(self.settings.attempts, lambda: self.folder.names(name))

    def _read(self, name: str) -> bytes | None:
        return with_retries(self.settings.attempts, lambda: self.folder.read(name))


def _quick_check(folder: Path) -> Manifest:
    """The manifest of a package whose files have the sizes in it; what arrives is compared with the hashes anyway.

    Raises UserError when there is no manifest, or a file has another size.
    """
    manifest = read_manifest(folder)
    if manifest is None or any(
        not (folder / name).is_file() or (folder / name).stat().st_size != entry.size
        for name, entry in manifest.files.items()
    ):
        return check_folder(folder)  # which says what is wrong
    return manifest


def _draft_name(target: Path) -> str:
    return f".{target.name}.{os.getpid()}-{uuid.uuid4().hex[:12]}{DRAFT}"


@contextmanager
def _drafting(target: Path) -> Iterator[Path]:
    """A folder beside `target` to be filled and renamed; it is gone afterwards, whatever happens."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{target.name}.*{DRAFT}"):
        if not _runs(left.name):
            shutil.rmtree(left, ignore_errors=True)
    draft = target.with_name(_draft_name(target))
    draft.mkdir()
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _runs(draft: str) -> bool:
    """Whether the process that made a draft of that name is alive on this machine (or on another one: unknown)."""
    process = draft.removesuffix(DRAFT).rpartition(".")[2].partition("-")[0]
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def _explained(address: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{address} could not be written: {reason(error)}") from error


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    _sync(path)


def _sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folders(folder: Path) -> None:
    for path in _and_folders(folder):
        _sync(path)


def _and_folders(folder: Path) -> Iterable[Path]:
    return [folder, *(path for path in folder.rglob("*") if path.is_dir())]
