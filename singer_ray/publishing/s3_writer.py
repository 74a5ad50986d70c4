"""Packages written to S3: under a claim, each file under a condition and compared, the manifest last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from singer_ray.errors import UserError
from singer_ray.publishing.manifest import (
    CARD,
    CONFIG,
    CORE,
    FORMATS,
    MANIFEST,
    PICTURES,
    RESULT,
    Entry,
    Manifest,
    entry_of,
)
from singer_ray.storage.found import Object
from singer_ray.storage.lease import HeldError, Lease, LostError
from singer_ray.storage.s3 import Bucket, with_retries
from singer_ray.storage.tags import tag_of

LEASE = 120.0
"""Seconds after which the right to write a package has lapsed when nobody renews it."""
STAGED = ".new"
"""End of the name of the folder to which a replacement comes first."""
AT_A_TIME = 4
"""Files that are sent at a time."""


class S3Writer:
    """Puts packages below `bucket` and removes them. Of several exports at once, one writes a package at a time.

    Args:
        lease: seconds, see `Lease`.
    """

    def __init__(self, bucket: Bucket, lease: float) -> None:
        self.bucket, self.lease, self.attempts = bucket, lease, bucket.settings.attempts

    def put(
        self, folder: Path, name: str, manifest: Manifest, holds: Callable[[], Manifest | None], *, replace: bool
    ) -> bool:
        """Sends the package in `folder` to `name`, unless `holds` says that it is there; whether it did."""
        there = holds()
        if there is not None and self._is_whole(folder, name, there):
            self._claim(name).clear()
            _clear(self.bucket, name)
            return False
        for _ in range(self.attempts):
            with suppress(LostError), self._claimed(name) as claim:
                stays, found = holds(), self.bucket.list(name)
                if stays is not None and self._is_whole(folder, name, stays):
                    return False  # another export was faster
                replaces = f"{name}/{MANIFEST}" in found
                if not replaces and not replace:
                    self._refuse_foreign(name, found, manifest)
                _Upload(self.bucket, folder, name, manifest, claim).run(found, replaces=replaces)
                return True
        raise UserError(
            f"{self.bucket.address}/{name} was taken over by other exports, {self.attempts} times. Publish again."
        )

    def remove(self, name: str) -> None:
        """Removes the package `name`, its manifest first."""
        with self._claimed(name):
            self.bucket.delete([f"{name}/{MANIFEST}"])
            self.bucket.delete(sorted(self.bucket.list(name)))

    def _is_whole(self, folder: Path, name: str, there: Manifest) -> bool:
        """Whether all files of the package are there: by their sizes, and by their tags where these are hashes."""
        found = self.bucket.list(name)
        for file, entry in there.files.items():
            object_ = found.get(f"{name}/{file}")
            if object_ is None or object_.size != entry.size:
                return False
            # Where tags are hashes, another one is another content: a file that was spoilt, or written over.
            if (folder / file).is_file() and entry_of(folder / file) == entry:
                own = tag_of(folder / file)
                if len(own) == len(object_.tag) and own != object_.tag and self._digest(f"{name}/{file}") != entry:
                    return False
        return True

    def _refuse_foreign(self, name: str, found: Iterable[str], manifest: Manifest) -> None:
        """Raises UserError where files lie that no export has left there: they would be removed."""
        known = {*manifest.files, MANIFEST, CARD, CONFIG, RESULT, *CORE, *FORMATS}
        there = [key.removeprefix(f"{name}/") for key in found]
        foreign = [file for file in there if file not in known and not file.startswith(f"{PICTURES}/")]
        if foreign:
            raise UserError(
                f"{self.bucket.address}/{name} contains files but no package ({foreign[0]}). Give another address, or "
                "use --replace to remove them."
            )

    def _digest(self, name: str) -> Entry | None:
        found = with_retries(self.attempts, lambda: self.bucket.stream(name))
        return None if found is None else Entry(*found)

    def _claim(self, name: str) -> Lease:
        return Lease(self.bucket, f"{name}.claim", seconds=self.lease, patience=2 * self.lease)

    @contextmanager
    def _claimed(self, name: str) -> Iterator[Lease]:
        with ExitStack() as stack:
            try:
                claim = stack.enter_context(self._claim(name))
            except HeldError as error:
                raise UserError(
                    f"{self.bucket.address}/{name} is being written by another export, on {error.machine}. Wait for it "
                    "to end, and publish again."
                ) from error
            yield claim


class _Upload:
    """One package on its way. Raises LostError when another export has taken over."""

    def __init__(self, bucket: Bucket, folder: Path, name: str, manifest: Manifest, claim: Lease) -> None:
        self.bucket, self.folder, self.name, self.manifest, self.claim = bucket, folder, name, manifest, claim
        self.attempts = bucket.settings.attempts

    def run(self, found: Mapping[str, Object], *, replaces: bool) -> None:
        """Sends all files and then the manifest. A package that it replaces stays until all files have come.

        `found` is what lies at its place.
        """
        name, staged = self.name, f"{self.name}{STAGED}"
        if replaces:
            self._send_all(staged, self.bucket.list(staged))
            self.bucket.delete([f"{name}/{MANIFEST}"])
            for file, entry in self.manifest.files.items():
                self.claim.check()
                self.bucket.copy(f"{staged}/{file}", f"{name}/{file}")
                if self._digest(f"{name}/{file}") != entry:
                    raise UserError(f"{self.bucket.address}/{name}/{file} was copied badly. Publish again.")
            found = self.bucket.list(name)
        else:
            found = self._send_all(name, found)
        wanted = {f"{name}/{file}" for file in self.manifest.files}
        self.bucket.delete([key for key in found if key not in wanted])
        self._seal()
        _clear(self.bucket, name)

    def _send_all(self, name: str, there: Mapping[str, Object]) -> Mapping[str, Object]:
        """Returns what lies at `name` afterwards."""
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            sent = pool.map(lambda file: self._send(name, file, there), self.manifest.files)
            tags = dict(zip(self.manifest.files, sent))
        found = self.bucket.list(name)
        for file, tag in tags.items():  # a process that had lost its claim may have written since
            if found.get(f"{name}/{file}", Object(0, "")).tag != tag:
                raise LostError
        return found

    def _send(self, name: str, file: str, there: Mapping[str, Object]) -> str:
        """Sends a file until it is there as it should be, and returns its tag; an earlier upload's is kept."""
        path, key, entry = self.folder / file, f"{name}/{file}", self.manifest.files[file]
        over = there[key].tag if key in there else None
        if over is not None and over == tag_of(path) and entry_of(path) == entry:
            return over
        for _ in range(self.attempts):
            self.claim.check()
            sent = self.bucket.put_file(key, path, over=over)
            if sent is not None and sent.sha256 != entry.sha256:
                raise UserError(
                    f"{path} was changed after its {MANIFEST} was written. Restore it; or remove {MANIFEST} to publish "
                    "the folder as it is now."
                )
            if sent is not None and sent.confirmed:
                return sent.tag
            # Something else is there (a try whose answer was lost), what was sent was spoilt, or tags are no hashes.
            found = self.bucket.list(key.rpartition("/")[0]).get(key)
            over = None if found is None else found.tag
            if over is not None and self._digest(key) == entry:
                return over
        raise UserError(f"{self.bucket.address}/{key} arrived damaged {self.attempts} times. Check the connection.")

    def _seal(self) -> None:
        key, content = f"{self.name}/{MANIFEST}", self.manifest.to_bytes()
        for _ in range(self.attempts):
            self.claim.check()
            written = self.bucket.create(key, content, tagged=True)
            found = self.bucket.get(key)
            if found == content:
                return
            if not written and found is not None and _parses(found):
                raise LostError  # another export has written its manifest meanwhile
            self.bucket.delete([key])  # spoilt on its way
        raise UserError(f"{self.bucket.address}/{key} arrived damaged {self.attempts} times. Check the connection.")

    def _digest(self, key: str) -> Entry | None:
        found = with_retries(self.attempts, lambda: self.bucket.stream(key))
        return None if found is None else Entry(*found)


def _clear(bucket: Bucket, name: str) -> None:
    """Removes what earlier tries left beside a package, and uploads in parts, also those begun without an answer."""
    bucket.delete(sorted(bucket.list(f"{name}{STAGED}")))
    for place in (name, f"{name}{STAGED}"):
        bucket.abort_uploads(place)


def _parses(content: bytes) -> bool:
    with suppress(UserError):
        return bool(Manifest.parse(content, MANIFEST))
    return False
