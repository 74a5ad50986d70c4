"""Files in a folder of this machine, or in one that several machines mount."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from singer_ray.errors import UserError, printable
from singer_ray.storage.drafts import drafted, new_draft, write_whole
from singer_ray.storage.explain import reason
from singer_ray.storage.protocol import Object, Seen
from singer_ray.storage.reading import hashed, opened, stays_inside

if TYPE_CHECKING:
    from singer_ray.storage.address import Address
    from singer_ray.storage.settings import S3Settings


class LocalStore:
    """An `ObjectStore` in a folder.

    The files may be a stranger's: links that lead out of the folder are refused (UserError), and so is anything but a
    regular file.
    """

    def __init__(self, place: Address, settings: S3Settings) -> None:
        assert place.folder is not None
        self.address, self.path = place.text, place.folder
        self._outermost = self.path
        """The folder that the user named: links may lead anywhere inside it."""

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def check(self, *, writable: bool) -> None:
        parent = next(p for p in (self.path, *self.path.parents) if p.exists())
        if writable and (not parent.is_dir() or not os.access(parent, os.W_OK)):
            raise UserError(f"{self.address!r} cannot be written: {parent} is not a writable folder.")

    def below(self, name: str) -> LocalStore:
        inner = copy.copy(self)
        inner.address, inner.path = f"{self.address}/{name}", self.path / name
        return inner

    def get(self, name: str) -> bytes | None:
        try:
            with opened(self._real(name)) as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unread(name, error) from error

    def look(self, name: str) -> Seen | None:
        path = self.path / name
        try:
            content = path.read_bytes()
            written = path.stat().st_mtime
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{path} cannot be read: {reason(error)}") from error
        with self._draft(name, b"") as draft:  # its timestamp is the store's clock
            return Seen(content, _tag(content), draft.stat().st_mtime - written)

    def stream(self, name: str, take: Callable[[bytes], object]) -> tuple[int, str] | None:
        try:
            with opened(self._real(name)) as stream:
                return hashed(stream, take)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unread(name, error) from error

    def require(self, name: str) -> None:
        with contextlib.suppress(OSError), opened(self._real(name)):
            pass  # any other error will show when it is read

    def list(self, below: str = "") -> dict[str, Object]:
        try:
            sizes = dict(_sizes(self._inside(below)))
        except OSError as error:
            raise UserError(f"{self.address} cannot be listed: {reason(error)}") from error
        return {path.relative_to(self.path).as_posix(): Object(size, "") for path, size in sizes.items()}

    def folders(self, below: str = "") -> Sequence[str]:
        try:
            folders = [path for path in self._inside(below).iterdir() if path.is_dir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise UserError(f"{self.address} cannot be listed: {reason(error)}") from error
        return sorted(path.relative_to(self.path).as_posix() for path in folders)

    def put(self, name: str, content: bytes) -> None:
        path = self.path / name
        stays_inside(path.parent, self._outermost)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)  # several processes may write it at once
        except OSError as error:
            raise UserError(f"{self.address}/{name} could not be written: {reason(error)}") from error

    def create(self, name: str, content: bytes) -> bool:
        path = self.path / name
        with self._draft(name, content) as draft:
            try:
                os.link(draft, path)
            except FileExistsError:
                return False
            except OSError:  # a file system without links
                try:
                    with path.open("xb") as file:
                        file.write(content)
                except FileExistsError:
                    return False
        return True

    def swap(self, name: str, content: bytes, tag: str) -> bool:
        path = self.path / name
        with self._draft(name, content) as draft, locked(self.path):
            try:
                if _tag(path.read_bytes()) != tag:
                    return False
            except FileNotFoundError:
                return False
            draft.replace(path)
        return True

    def copy(self, name: str, target: str) -> None:
        path = self.path / target
        stays_inside(path.parent, self._outermost)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with opened(self._real(name)) as source, drafted(path) as draft, draft.open("wb") as file:
                hashed(source, file.write)
        except OSError as error:
            raise UserError(f"{self.address}/{target} could not be written: {reason(error)}") from error

    def delete(self, names: Sequence[str], tag: str | None = None) -> None:
        for name in names:
            path = self.path / name
            try:
                if tag is None:
                    path.unlink(missing_ok=True)
                else:
                    self._delete_unchanged(path, tag)
            except OSError as error:
                raise UserError(f"{self.address}/{name} could not be removed: {reason(error)}") from error

    def abort_uploads(self, below: str = "") -> int:
        return 0  # writers remove their own drafts; nothing tells whether a writer is still alive

    def _delete_unchanged(self, path: Path, tag: str) -> None:
        with contextlib.suppress(FileNotFoundError), locked(self.path):
            if _tag(path.read_bytes()) == tag:
                path.unlink()

    @contextlib.contextmanager
    def _draft(self, name: str, content: bytes) -> Iterator[Path]:
        """Yields a file beside `name` that is gone afterwards; turns disk errors in the block into UserErrors."""
        path = self.path / name
        draft = new_draft(path)
        try:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                draft.write_bytes(content)  # safe, as its name is unpredictable
                yield draft
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{path} could not be written: {reason(error)}") from error

    def _real(self, name: str) -> Path:
        return stays_inside(self.path / name, self._outermost)

    def _inside(self, below: str) -> Path:
        """The folder `below` in this one. Raises UserError when a link leads out."""
        self._real(below)
        return self.path / below

    def _unread(self, name: str, error: OSError) -> UserError:
        return UserError(f"{printable(self.address)}/{printable(name)} cannot be read: {reason(error)}")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps out who else locks the folder, in this process and in others, while the block runs."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems lack it: there, reading back must do
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sizes(folder: Path) -> Iterator[tuple[Path, int]]:
    """The files below a folder with their sizes; files that vanish meanwhile are left out."""
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                yield path, path.stat().st_size


def _tag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
