"""MANIFEST.json: what a package holds, with sizes and hashes. It is written last: no manifest, no package."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from singer_ray.errors import UserError, printable
from singer_ray.layout import CLASSES, HEAD, MANIFEST, MODEL_CONFIG, ONNX, PROGRAM, WEIGHTS
from singer_ray.storage import DRAFT, hashed, read_json, write_whole
from singer_ray.storage.address import is_plain
from singer_ray.storage.reading import opened, stays_inside

FORMAT = 1
CORE = (MODEL_CONFIG, WEIGHTS, HEAD, CLASSES)
"""The files of the student itself."""
FORMATS = (ONNX, PROGRAM)
"""The same student for other runtimes."""
_SHA256 = re.compile("[0-9a-f]{64}")


class OtherFormatError(UserError):
    """Another version of this program wrote the manifest."""


@dataclass(frozen=True)
class Entry:
    """One file."""

    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The files of a package by name, with `/` between parts."""

    files: Mapping[str, Entry]

    @classmethod
    def of(cls, folder: Path) -> Manifest:
        """Hashes all files in `folder` except drafts and the manifest itself.

        Raises UserError for a file that cannot be read, that lies outside `folder` behind a link, or whose name cannot
        be published.
        """
        names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        names = [n for n in names if n != MANIFEST and not n.endswith(DRAFT)]
        unfit = next((n for n in names if not is_plain(n)), None)
        if unfit is not None:
            raise UserError(
                f"{printable(folder)} holds the file {printable(unfit)!r}, under whose name nothing can be published "
                "(control characters, backslashes, bytes that are no UTF-8, or too long). Rename it."
            )
        return cls({n: entry_of(stays_inside(folder / n, folder)) for n in names})

    @classmethod
    def parse(cls, content: bytes, where: str) -> Manifest:
        """Reads the content of MANIFEST.json; `where` names it in messages.

        Raises UserError when it is damaged or of another format, lists no files, or lists one that no package may hold.
        """
        where, tree = printable(where), None
        try:
            tree = read_json(content, where, "Publish the package again.")
            version = tree["format"]
            files = {str(n): _entry(e) for n, e in tree["files"].items()}
            stated = tree.get("package")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            if isinstance(tree, dict) and tree.get("format", FORMAT) != FORMAT:
                raise OtherFormatError(_other(where, tree["format"])) from error
            kind = type(error).__name__
            raise UserError(f"{where} is not a manifest ({kind}). Publish the package again.") from error
        if version != FORMAT:
            raise OtherFormatError(_other(where, version))
        if not files:
            raise UserError(f"{where} names no file: it is not a package. Publish the student again.")
        for name in files:
            _check(name, where)
        manifest = cls(files)
        if manifest.digest != stated:
            raise UserError(f"{where} does not match its own digest: it was changed. Publish the package again.")
        return manifest

    @property
    def digest(self) -> str:
        """SHA-256 over the names, sizes and hashes of all files; identifies the package."""
        return _digest({name: [entry.size, entry.sha256] for name, entry in sorted(self.files.items())})

    @property
    def student(self) -> str:
        """SHA-256 over the files of the student itself: the same in every package of that student."""
        return _digest({name: self.files[name].sha256 for name in CORE if name in self.files})

    @property
    def formats(self) -> frozenset[str]:
        """Which of FORMATS the package holds."""
        return frozenset(FORMATS) & frozenset(self.files)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files.values())

    def to_bytes(self) -> bytes:
        """The content of MANIFEST.json."""
        files = {name: {"bytes": entry.size, "sha256": entry.sha256} for name, entry in sorted(self.files.items())}
        tree = {"format": FORMAT, "package": self.digest, "student": self.student, "files": files}
        return (json.dumps(tree, indent=1) + "\n").encode()

    def error(self, entries: Mapping[str, Entry]) -> str | None:
        """The first difference between the manifest and the existing `entries`, in words; additional files are fine."""
        for name, entry in self.files.items():
            there = entries.get(name)
            if there is None:
                return f"{name} is missing"
            if there.size != entry.size:
                return f"{name} has {there.size} bytes, not {entry.size}"
            if there.sha256 != entry.sha256:
                return f"{name} has another content (SHA-256 {there.sha256[:12]}..., not {entry.sha256[:12]}...)"
        return None


def entry_of(path: Path) -> Entry:
    """Size and hash of a regular file. Raises UserError."""
    try:
        with opened(path) as stream:
            return Entry(*hashed(stream))
    except OSError as error:
        raise UserError(f"{printable(path)} cannot be read: {error.strerror}. Allow it to be read.") from error


def write_manifest(folder: Path) -> Manifest:
    """Writes MANIFEST.json for the files in `folder`, whole or not at all."""
    manifest = Manifest.of(folder)
    write_whole(folder / MANIFEST, manifest.to_bytes())
    return manifest


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a local folder, None when there is none. Raises UserError for a broken one."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    with opened(path) as file:
        return Manifest.parse(file.read(), str(path))


def check_folder(folder: Path) -> Manifest:
    """Returns a package's manifest, compared by hash. Raises UserError when it is missing or files differ."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(f"{folder} has no {MANIFEST}: the package is incomplete. Publish it again.")
    error = manifest.error(Manifest.of(folder).files)
    if error:
        raise UserError(
            f"{folder} was changed after its {MANIFEST} was written: {error}. Restore that file; or remove {MANIFEST} "
            "to publish the folder as it is now."
        )
    return manifest


def _entry(stated: Any) -> Entry:
    """A file's entry in a manifest. Raises ValueError for an impossible size or hash."""
    size, digest = stated["bytes"], stated["sha256"]
    if type(size) is not int or size < 0 or not _SHA256.fullmatch(digest):
        raise ValueError(f"no size and hash of a file: {size!r}, {digest!r}")
    return Entry(size, digest)


def _check(name: str, where: str) -> None:
    """Raises UserError for a name that no file of a package may have."""
    shown = printable(name)
    if name == MANIFEST or not is_plain(name):
        raise UserError(f"{where} names the file {shown!r}, outside the package. Use another package.")
    if name.endswith(DRAFT):  # packages are made without drafts, and readers skip them
        raise UserError(
            f"{where} names the file {shown!r}: what ends in {DRAFT} is a draft, which no package holds. Publish the "
            "package again."
        )


def _other(where: str, version: object) -> str:
    return f"{where} has the format {printable(repr(version), 40)}, not {FORMAT}. Use the singer_ray that wrote it."


def _digest(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
