"""Packages written to a server such as S3: under a claim, each file under a condition and compared, manifest last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from singer_ray.errors import UserError
from singer_ray.layout import CARD, CONFIG, MANIFEST, PICTURES, RESULT
from singer_ray.publishing.packages.manifest import (
    CORE,
    FORMATS,
    Entry,
    Manifest,
    entry_of,
)
from singer_ray.storage.lease import HeldError, Lease, LostError
from singer_ray.storage.protocol import Object, ServerStore
from singer_ray.storage.retries import with_retries

LEASE = 120.0
"""Seconds after which the right to write a package lapses unless it is renewed."""
STAGED = ".new"
"""Suffix of the folder to which a replacement is uploaded first."""
AT_A_TIME = 4
"""Files that are sent at the same time."""


class ServerWriter:
    """Uploads packages to a store and removes them. Concurrent exports write the same package one after the other.

    Args:
        lease: seconds, see `Lease`.
    """

    def __init__(self, store: ServerStore, lease: float) -> None:
        self.store, self.lease, self.attempts = store, lease, store.attempts

    def put(
        self, folder: Path, name: str, manifest: Manifest, holds: Callable[[], Manifest | None], *, replace: bool
    ) -> bool:
        """Sends the package in `folder` to `name` unless `holds` says that it is there; returns whether it did."""
        there = holds()
        if there is not None and self._is_whole(folder, name, there):
            self._claim(name).clear()
            _clear(self.store, name)
            return False
        for _ in range(self.attempts):
            with suppress(LostError), self._claimed(name) as claim:
                stays, objects = holds(), self.store.list(name)
                if stays is not None and self._is_whole(folder, name, stays):
                    return False  # another export was faster
                replaces = f"{name}/{MANIFEST}" in objects
                if not replaces and not replace:
                    self._refuse_foreign(name, objects, manifest)
                _Upload(self.store, folder, name, manifest, claim).run(objects, replaces=replaces)
                return True
        raise UserError(
            f"{self.store.address}/{name} was taken over by other exports, {self.attempts} times. Publish again."
        )

    def remove(self, name: str) -> None:
        """Removes the package `name`, its manifest first."""
        with self._claimed(name):
            self.store.delete([f"{name}/{MANIFEST}"])
            self.store.delete(sorted(self.store.list(name)))

    def _is_whole(self, folder: Path, name: str, there: Manifest) -> bool:
        """Whether all files of the package are there, judged by their sizes, and by tags where these are hashes."""
        objects = self.store.list(name)
        for file, entry in there.files.items():
            object_ = objects.get(f"{name}/{file}")
            if object_ is None or object_.size != entry.size:
                return False
            # Where tags are hashes, a different tag means different content: a file that was damaged or overwritten.
            if (folder / file).is_file() and entry_of(folder / file) == entry:
                own = self.store.tag_of(folder / file)
                is_other = len(own) == len(object_.tag) and own != object_.tag
                if is_other and _digest(self.store, f"{name}/{file}") != entry:
                    return False
        return True

    def _refuse_foreign(self, name: str, keys: Iterable[str], manifest: Manifest) -> None:
        """Raises UserError when there are files that no export has written, since they would be removed."""
        known = {*manifest.files, MANIFEST, CARD, CONFIG, RESULT, *CORE, *FORMATS}
        there = [key.removeprefix(f"{name}/") for key in keys]
        foreign = [file for file in there if file not in known and not file.startswith(f"{PICTURES}/")]
        if foreign:
            raise UserError(
                f"{self.store.address}/{name} contains files but no package ({foreign[0]}). Give another address, or "
                "use --replace to remove them."
            )

    def _claim(self, name: str) -> Lease:
        return Lease(self.store, f"{name}.claim", seconds=self.lease, patience=2 * self.lease)

    @contextmanager
    def _claimed(self, name: str) -> Iterator[Lease]:
        with ExitStack() as stack:
            try:
                claim = stack.enter_context(self._claim(name))
            except HeldError as error:
                raise UserError(
                    f"{self.store.address}/{name} is being written by another export, on {error.machine}. Wait for it "
                    "to end, and publish again."
                ) from error
            yield claim


class _Upload:
    """The upload of one package. Raises LostError when another export has taken over."""

    def __init__(self, store: ServerStore, folder: Path, name: str, manifest: Manifest, claim: Lease) -> None:
        self.store, self.folder, self.name, self.manifest, self.claim = store, folder, name, manifest, claim
        self.attempts = store.attempts

    def run(self, objects: Mapping[str, Object], *, replaces: bool) -> None:
        """Sends all files, then the manifest. A package that is replaced stays until all new files have arrived.

        `objects` are those that are at its place now.
        """
        name, staged = self.name, f"{self.name}{STAGED}"
        if replaces:
            self._send_all(staged, self.store.list(staged))
            self.store.delete([f"{name}/{MANIFEST}"])
            for file, entry in self.manifest.files.items():
                self.claim.check()
                self.store.copy(f"{staged}/{file}", f"{name}/{file}")
                if _digest(self.store, f"{name}/{file}") != entry:
                    raise UserError(f"{self.store.address}/{name}/{file} was copied badly. Publish again.")
            objects = self.store.list(name)
        else:
            objects = self._send_all(name, objects)
        wanted = {f"{name}/{file}" for file in self.manifest.files}
        self.store.delete([key for key in objects if key not in wanted])
        self._seal()
        _clear(self.store, name)

    def _send_all(self, name: str, there: Mapping[str, Object]) -> Mapping[str, Object]:
        """Sends all files; returns the objects that are at `name` afterwards."""
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            sent = pool.map(lambda file: self._send(name, file, there), self.manifest.files)
            tags = dict(zip(self.manifest.files, sent))
        objects = self.store.list(name)
        for file, tag in tags.items():  # a process that had lost its claim may have written since
            if objects.get(f"{name}/{file}", Object(0, "")).tag != tag:
                raise LostError
        return objects

    def _send(self, name: str, file: str, there: Mapping[str, Object]) -> str:
        """Sends a file until it has arrived intact, and returns its tag; one that is already there is kept."""
        path, key, entry = self.folder / file, f"{name}/{file}", self.manifest.files[file]
        over = there[key].tag if key in there else None
        if over is not None and over == self.store.tag_of(path) and entry_of(path) == entry:
            return over
        for _ in range(self.attempts):
            self.claim.check()
            sent = self.store.put_file(key, path, over=over)
            if sent is not None and sent.sha256 != entry.sha256:
                raise UserError(
                    f"{path} was changed after its {MANIFEST} was written. Restore it; or remove {MANIFEST} to publish "
                    "the folder as it is now."
                )
            if sent is not None and sent.confirmed:
                return sent.tag
            # Another object is there (from a try whose answer was lost), the file arrived damaged, or tags are not
            # hashes.
            object_ = self.store.list(key.rpartition("/")[0]).get(key)
            over = None if object_ is None else object_.tag
            if over is not None and _digest(self.store, key) == entry:
                return over
        raise UserError(f"{self.store.address}/{key} arrived damaged {self.attempts} times. Check the connection.")

    def _seal(self) -> None:
        key, content = f"{self.name}/{MANIFEST}", self.manifest.to_bytes()
        for _ in range(self.attempts):
            self.claim.check()
            written = self.store.seal(key, content)
            stored = self.store.get(key)
            if stored == content:
                return
            if not written and stored is not None and _parses(stored):
                raise LostError  # another export has written its manifest meanwhile
            self.store.delete([key])  # damaged in transit
        raise UserError(f"{self.store.address}/{key} arrived damaged {self.attempts} times. Check the connection.")


def _digest(store: ServerStore, name: str) -> Entry | None:
    size_and_hash = with_retries(store.attempts, lambda: store.stream(name, lambda chunk: None))
    return None if size_and_hash is None else Entry(*size_and_hash)


def _clear(store: ServerStore, name: str) -> None:
    """Removes what earlier tries left beside a package, including multipart uploads whose start was never confirmed."""
    store.delete(sorted(store.list(f"{name}{STAGED}")))
    for place in (name, f"{name}{STAGED}"):
        store.abort_uploads(place)


def _parses(content: bytes) -> bool:
    with suppress(UserError):
        return bool(Manifest.parse(content, MANIFEST))
    return False
