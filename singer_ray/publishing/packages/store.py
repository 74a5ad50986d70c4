"""Packages in a local folder or in S3: published, listed, verified and fetched, each whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from singer_ray.errors import UserError, printable
from singer_ray.layout import MANIFEST
from singer_ray.publishing.packages.local_writer import (
    LocalWriter,
    drafting,
    explained,
    is_draft,
    sync_folders,
    write_synced,
)
from singer_ray.publishing.packages.manifest import Entry, Manifest, OtherFormatError, check_folder, read_manifest
from singer_ray.publishing.packages.server_writer import LEASE, ServerWriter
from singer_ray.storage import Folder
from singer_ray.storage.protocol import ServerStore
from singer_ray.storage.retries import with_retries

if TYPE_CHECKING:
    from singer_ray.config import ExportConfig

AT_A_TIME = 4
"""Files of a package that are read at the same time."""


@dataclass(frozen=True)
class Published:
    """A package at its address."""

    address: str
    new: bool
    """False when it was there already."""
    size: int
    """Bytes."""
    other: bool = False
    """Whether the same student is there in a different package: with another rank, card or set of formats."""

    def __str__(self) -> str:
        return self.address


class Store:
    """A local folder or `s3://bucket/prefix` that holds packages: folders with a MANIFEST.json, which is written last.

    Args:
        settings: endpoint, encryption, storage class, tags, attempts, timeout.
        lease: seconds after which the right to write a package in S3 lapses when nobody renews it.
        writable: whether packages will be written.

    Raises UserError for an address that cannot be used.
    """

    def __init__(
        self,
        address: str,
        endpoint: str | None = None,
        *,
        settings: ExportConfig | None = None,
        setting: str = "export.to",
        lease: float = LEASE,
        writable: bool = True,
    ) -> None:
        from singer_ray.config import ExportConfig

        self.settings = (settings or ExportConfig()).model_copy(update={"endpoint": endpoint} if endpoint else {})
        self.folder = Folder(address, setting=setting, writable=writable, settings=self.settings)
        self.address = self.folder.address
        self._writer = _writer(self.folder, lease)

    def put(self, folder: Path, name: str, *, replace: bool = False) -> Published:
        """Publishes the package in `folder` as ADDRESS/`name`; sends nothing when it is already there.

        What arrives is verified; the manifest is written last. With `replace` the result is exactly as in `folder`,
        whatever was there before; a complete old package stays until the new one has arrived. Raises UserError when
        `folder` is not a complete package, another one is there (unless `replace`), or it cannot be written.
        """
        manifest = _quick_check(folder)
        where = f"{self.address}/{name}"

        def holds() -> Manifest | None:
            """The existing package if it stays, else None. Raises UserError when it is a different one."""
            there = self.find(name)
            if there is None or replace or there.digest == manifest.digest:
                return None if replace else there
            if there.student == manifest.student and there.formats >= manifest.formats:
                return there  # the same student with another card: what is published stays
            raise UserError(
                f"{where} holds another package ({there.digest[:12]}..., not {manifest.digest[:12]}...). Use --replace "
                "to put this one in its place, or give another address."
            )

        new = self._writer.put(folder, name, manifest, holds, replace=replace)
        if new:
            return Published(where, True, manifest.size)
        there = self.find(name) or manifest
        return Published(where, False, there.size, other=there.digest != manifest.digest)

    def find(self, name: str) -> Manifest | None:
        """The manifest of the package ADDRESS/`name`; None when there is no package, or only the remains of one.

        Raises UserError for one that another version of this program wrote, or that cannot be read.
        """
        content = self.folder.read(_inside(name, MANIFEST))
        try:
            return None if content is None else Manifest.parse(content, f"{self.address}/{_inside(name, MANIFEST)}")
        except OtherFormatError:
            raise
        except UserError:
            return None

    def packages(self, below: str = "") -> list[str]:
        """The names of all packages below ADDRESS, or below its folder `below`; "" is ADDRESS itself."""
        files = self.folder.names(below)
        names = [name.removesuffix(MANIFEST).rstrip("/") for name in files if f"/{name}".endswith(f"/{MANIFEST}")]
        return [name for name in names if not any(is_draft(part) for part in name.split("/"))]

    def verify(self, name: str) -> Manifest:
        """Compares every file of ADDRESS/`name` with its manifest. Raises UserError for the first error."""
        manifest = self._required(name)

        def read(file: str) -> Entry | None:
            entry = None
            for _ in range(2):  # a file damaged in transit arrives intact the second time
                size_and_hash = with_retries(self.settings.attempts, lambda: self.folder.digest(_inside(name, file)))
                entry = None if size_and_hash is None else Entry(*size_and_hash)
                if entry == manifest.files[file]:
                    break
            return entry

        with ThreadPoolExecutor(AT_A_TIME) as pool:
            entries = dict(zip(manifest.files, pool.map(read, manifest.files)))
        error = manifest.error({file: entry for file, entry in entries.items() if entry is not None})
        if error:
            raise UserError(f"{self._where(name)} is incomplete: {error}. Publish it again with --replace.")
        return manifest

    def pull(self, name: str, target: Path) -> Manifest:
        """Fetches the package ADDRESS/`name` into the new folder `target` and verifies it. Raises UserError."""
        manifest = self._required(name)
        if os.path.lexists(target) and (not target.is_dir() or any(target.iterdir())):
            raise UserError(f"{printable(target)} is there already. Give a new folder.")
        for file in manifest.files:
            self.folder.require(_inside(name, file))

        def fetch(file: str) -> None:
            for _ in range(self.settings.attempts):
                size_and_hash = with_retries(
                    self.settings.attempts, lambda: self.folder.fetch(_inside(name, file), draft / file)
                )
                if size_and_hash is not None and Entry(*size_and_hash) == manifest.files[file]:
                    return
            raise UserError(
                f"{self._where(name)}/{file} does not match its manifest. Publish the package again: --replace."
            )

        with explained(str(target)), drafting(target) as draft:
            with ThreadPoolExecutor(AT_A_TIME) as pool:
                list(pool.map(fetch, manifest.files))
            write_synced(draft / MANIFEST, manifest.to_bytes())
            check_folder(draft)
            sync_folders(draft)
            draft.rename(target)
        return manifest

    def write_listing(self, name: str, content: Callable[[], bytes]) -> None:
        """Writes a file that lists others, again and again until what is stored is what `content` returns.

        So when several processes write one listing, the last one leaves it complete. Raises UserError.
        """
        for _ in range(2 * self.settings.attempts):
            wanted = content()
            if self.folder.read(name) == wanted:
                return
            self.folder.write(name, wanted)
        raise UserError(f"{self.address}/{name} does not stay as it is written. Publish again.")

    def write(self, name: str, content: bytes) -> None:
        """Writes a file that belongs to no package, over an earlier one, and reads it back. Raises UserError."""
        self.write_listing(name, lambda: content)

    def create(self, folder: str, name: str, content: bytes) -> bool:
        """Writes ADDRESS/`folder`/`name` unless it exists; returns whether it did. Raises UserError."""
        return self.folder.below(folder).create(name, content)

    def read(self, name: str) -> bytes | None:
        """The content of a file, None when there is none. Raises UserError."""
        return self.folder.read(name)

    def folders(self, below: str = "") -> Sequence[str]:
        """The names of the folders right in ADDRESS, or in its folder `below`. Raises UserError."""
        return [name for name in self.folder.folders(below) if not is_draft(name)]

    def remove(self, name: str) -> None:
        """Removes the package ADDRESS/`name`, its manifest first. Raises UserError."""
        self._writer.remove(name)

    def missing(self, listed: Mapping[str, str]) -> list[str]:
        """The names of listed packages (name -> digest) that are missing or have another digest."""
        manifests = {name: self.find(name) for name in listed}
        return [name for name, there in manifests.items() if there is None or there.digest != listed[name]]

    def _required(self, name: str) -> Manifest:
        content = self.folder.read(_inside(name, MANIFEST))
        if content is None:
            raise UserError(f"{self._where(name)} has no {MANIFEST}: there is no complete package. Publish it again.")
        return Manifest.parse(content, f"{self.address}/{_inside(name, MANIFEST)}")

    def _where(self, name: str) -> str:
        return f"{self.address}/{name}".rstrip("/")


def _writer(folder: Folder, lease: float) -> LocalWriter | ServerWriter:
    if folder.path is not None:
        return LocalWriter(folder.path)
    assert isinstance(folder.store, ServerStore), f"{type(folder.store).__name__} cannot take packages"
    return ServerWriter(folder.store, lease)


def _inside(name: str, file: str) -> str:
    return f"{name}/{file}" if name else file


def _quick_check(folder: Path) -> Manifest:
    """The manifest of a package, checked by file sizes alone: its hashes are compared on arrival anyway.

    Raises UserError when there is no manifest, or a file has another size.
    """
    manifest = read_manifest(folder)
    if manifest is None or any(
        not (folder / name).is_file() or (folder / name).stat().st_size != entry.size
        for name, entry in manifest.files.items()
    ):
        return check_folder(folder)  # which says what is wrong
    return manifest
