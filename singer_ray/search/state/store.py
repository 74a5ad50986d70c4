"""Where the state of a search lives: its folder, and with `--storage` a copy that outlives the machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.storages.journal._file import LOCK_FILE_SUFFIX

from singer_ray.console.wording import command
from singer_ray.errors import UserError
from singer_ray.layout import CONFIG, JOURNAL, LEASE, LOCK, RECORD, SPACE, TRIALS
from singer_ray.search.state.description import description
from singer_ray.search.state.lock import FolderLock
from singer_ray.search.state.resume_rules import resume_command
from singer_ray.search.state.trial_checkpoint import patiently
from singer_ray.storage import Folder, read_json_mapping, write_whole
from singer_ray.storage.lease import HeldError, Lease, LostError

REMARKS = "remarks"
"""The key in search.json of the lines about the data that were printed at the start."""
STATE = (CONFIG, SPACE, JOURNAL, RECORD)
"""What a resume reads. The record is written last: a folder with a record has the other files too."""
END, FINISHED = "end", "finished"
"""In the record: why its last session stopped early, and whether that session came to its regular end."""
LEASE_SECONDS = 20.0
"""A driver that has not renewed its lease for this long counts as dead."""
_EVERY = 2.0


class SearchStore:
    """A search's folder OUT and, where there is one, the `shared` folder STORAGE/NAME.

    OUT holds `STATE`. `remote` is a copy of it in the shared folder; None without a shared folder, or where that is OUT
    itself. Checkpoints are in `trials`, in the shared folder when there is one. One driver at a time: see `driving`.

    Args:
        own: what a resume must be given again (see `own_inputs`).
    """

    def __init__(
        self,
        out: Path,
        shared: Folder | None,
        log: Callable[[str], None],
        *,
        own: Sequence[str] = (),
    ) -> None:
        self.out, self.shared, self.log, self.own = out, shared, log, own
        # Where copy and original are one file, writing the copy would undo what is being appended to the original.
        self.remote = None if shared is None or (shared.path is not None and is_same(shared.path, out)) else shared
        self.trials = shared.below(TRIALS) if shared else Folder(str(out / TRIALS), setting="--out")
        self._dirty, self._over = threading.Event(), threading.Event()
        self._sending = threading.Lock()
        self._warned = False
        self._there: dict[str, bytes] = {}
        """File -> SHA-256 of what was last copied: an unchanged study is not sent with every heartbeat."""
        self._lease: Lease | None = None
        self._lost: str | None = None

    @property
    def address(self) -> str:
        """What `--resume` takes."""
        return self.shared.address if self.shared and self.shared.path is None else str(self.out)

    @property
    def go_on(self) -> str:
        """How to resume the search, in a sentence."""
        return f"Go on with: {resume_command(self.address, self.own)}"

    def refuse_taken(self) -> None:
        """Raises UserError when the shared folder already holds a search."""
        if self.remote is not None and self.remote.read(RECORD) is not None:
            raise UserError(
                f"{self.remote.address} holds a search already. Go on with it: "
                f"{resume_command(self.remote.address, ())}; or use another --out "
                "(its name is the folder's), or --overwrite."
            )

    def ids(self) -> set[str]:
        """The ids of the searches in OUT and in the copy."""
        there = self.remote.read(RECORD) if self.remote is not None else None
        here = self.out / RECORD
        contents = {str(here): here.read_bytes() if here.exists() else None, f"the copy's {RECORD}": there}
        records = [read_json_mapping(content, where) for where, content in contents.items() if content is not None]
        return {str(record["id"]) for record in records if "id" in record}

    def clear(self) -> None:
        """Empties OUT and the copy. Raises UserError."""
        for path in self.out.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK and LEASE not in path.name:  # this process holds them
                path.unlink()
        if self.remote is not None:
            for name in self.remote.names():
                if name != LEASE:
                    self.remote.delete(name)

    def write(self, name: str, content: bytes) -> None:
        """Writes one of STATE in OUT and in the copy. Raises UserError."""
        Folder(str(self.out), setting="--out").write(name, content)
        if self.remote:
            self.remote.write(name, content)

    def read_record(self) -> dict[str, Any]:
        """The content of search.json; empty where there is none. Raises UserError."""
        path = self.out / RECORD
        return description(path.read_bytes(), str(path)) if path.exists() else {}

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Writes search.json in OUT; `saved` copies it."""
        write_whole(self.out / RECORD, json.dumps(record, indent=1) + "\n", synced=True)

    def saved(self, urgent: bool) -> None:
        """To be called when the study has changed: copies it, at once when `urgent`, else within seconds.

        Raises UserError when another process has taken over the search.
        """
        self._dirty.set()
        if self.shared is not None and urgent:
            self._send()
        if self._lost:
            raise UserError(self._lost)

    def catch_up(self) -> None:
        """Fetches what an earlier driver wrote to the copy before this one took over. Raises UserError."""
        if self.remote is not None and self.remote.read(RECORD) is not None:
            fetch(self.remote, self.out)

    @contextlib.contextmanager
    def driving(self) -> Iterator[None]:
        """Within, this process alone drives the search. Raises UserError when another one does."""
        with FolderLock(self.out), self._leased():
            _mend(self.out / JOURNAL)
            if self.shared is None:
                yield
                return
            self.shared.abort_uploads()  # of hosts that died
            sender = threading.Thread(target=self._send_often, daemon=True)
            sender.start()
            try:
                yield
                self._send_at_last()
            finally:
                self._over.set()
                sender.join()
                self._send()

    @contextlib.contextmanager
    def _leased(self) -> Iterator[None]:
        """Holds a lease in the shared folder: other machines do not see this one's lock."""
        if self.shared is None:
            yield
            return
        address = self.shared.address

        def waiting(seconds: float) -> None:
            self.log(f"waiting up to {seconds:.0f} s to see whether the driver of {address} is dead")

        lease = Lease(self.shared.store, LEASE, seconds=LEASE_SECONDS, on_wait=waiting)
        with contextlib.ExitStack() as stack:
            try:
                self._lease = stack.enter_context(lease)
            except HeldError as error:
                raise UserError(
                    f"Another process (on {error.machine}) drives the search at {address}. Watch it with "
                    f"`{command('tune', '--status', address)}`, or wait until it has ended."
                ) from error
            yield
            with contextlib.suppress(UserError):  # an unreachable store: the lease runs out by itself
                stack.close()

    def _send_often(self) -> None:
        while not self._over.wait(_EVERY):
            self._send()

    def _send(self) -> None:
        """Copies what has changed. A store that is unreachable for a while does not end the search."""
        try:
            self._bring()
            self._warned = False
        except UserError as error:
            if not self._warned:
                self.log(f"the copy of the search is behind, trying again: {error}")
            self._warned = True

    def _send_at_last(self) -> None:
        """The search has ended: waits for a store that is unreachable."""
        try:
            patiently(self._bring)
        except UserError as error:
            self.log(f"the copy of the search is incomplete: {error} {self.go_on}")
            self._dirty.clear()

    def _bring(self) -> None:
        """Raises UserError when the store is unreachable."""
        assert self.shared is not None
        assert self._lease is not None
        with self._sending:
            if self._lost or not self._dirty.is_set():
                return
            self._dirty.clear()
            try:
                self._lease.check()  # never overwrite what another driver has written since
                if self.remote is not None:
                    self._copy(self.remote)
            except UserError:
                self._dirty.set()
                raise
            except LostError:
                self._lost = f"Another process has taken over the search at {self.shared.address}."

    def _copy(self, remote: Folder) -> None:
        for name in (JOURNAL, RECORD):
            content = _whole_lines((self.out / name).read_bytes()) if (self.out / name).exists() else b""
            digest = hashlib.sha256(content).digest()
            if content and digest != self._there.get(name):
                remote.write(name, content)
                self._there[name] = digest


def is_same(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same place."""
    return one.resolve() == other.resolve()


def _whole_lines(content: bytes) -> bytes:
    """The content without an unfinished last line."""
    return content[: content.rfind(b"\n") + 1]


def _mend(journal: Path) -> None:
    """Removes what a driver leaves that died while writing: a lock, and half a line that would spoil the next one."""
    with contextlib.suppress(FileNotFoundError):
        (journal.parent / f"{journal.name}{LOCK_FILE_SUFFIX}").unlink()
    if not journal.exists():
        return
    content = journal.read_bytes()
    kept = _whole_lines(content)
    while kept:
        start = kept.rfind(b"\n", 0, -1) + 1
        with contextlib.suppress(ValueError, RecursionError):
            json.loads(kept[start:])
            break
        kept = kept[:start]
    if len(kept) < len(content):
        os.truncate(journal, len(kept))


def fetch(remote: Folder, out: Path) -> None:
    """Copies the state of the search in `remote` to OUT, unless OUT is already as far or further.

    Raises UserError when there is no search in `remote`, or another one in OUT.
    """
    record, address = remote.read(RECORD), remote.address
    if record is None:
        raise UserError(f"There is no search at {address}: it has no {RECORD}. Give the folder NAME below --storage.")
    if (out / RECORD).exists():
        here = read_json_mapping((out / RECORD).read_bytes(), str(out / RECORD))
        if here.get("id") != read_json_mapping(record, f"{address}/{RECORD}").get("id"):
            raise UserError(f"{out} holds another search than {address}. Use --out with another folder.")
    out.mkdir(parents=True, exist_ok=True)
    journal = remote.read(JOURNAL)
    if journal is not None and (out / JOURNAL).exists():
        own = (out / JOURNAL).read_bytes()
        if own.startswith(journal):
            return  # this machine is at least as far
        if not journal.startswith(own):
            raise UserError(f"{out} and {address} have diverged. Use --out with another folder.")
    for name in STATE:
        content = remote.read(name)
        if content is not None:
            write_whole(out / name, content)


def bring_study(address: str, endpoint: str | None, folder: Path) -> dict[str, Any]:
    """Copies configuration and journal of the search at `address` to `folder`, for reading; returns the record.

    Reading the copy takes no lock of the search's own journal. Raises UserError when there is no search.
    """
    source = Folder(address, endpoint, writable=False)
    content = source.read(RECORD)
    if content is None:
        raise UserError(f"There is no search in {address}: it has no {RECORD}. Give the --out of a search, or s3://...")
    record = description(content, f"{source.address}/{RECORD}")
    for name in (CONFIG, JOURNAL):
        content = source.read(name)
        if content is not None:
            (folder / name).write_bytes(content)
        elif name == CONFIG or record["study"] is None:
            raise UserError(f"{source.address} has no {name}: it is no whole search. Restore the file from a copy.")
    return record
