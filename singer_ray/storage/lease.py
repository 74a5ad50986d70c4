"""The right to write at a place, which only one process at a time has, across all machines."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from singer_ray.errors import UserError
from singer_ray.storage.protocol import LeaseFiles, Seen

_HELD: set[str] = set()
"""The leases that this process holds."""


class HeldError(Exception):
    """Another process holds the lease."""

    def __init__(self, holder: Mapping[str, str]) -> None:
        self.machine = holder.get("machine", "?").partition(" ")[0]
        super().__init__(f"held by a process on {self.machine}")


class LostError(Exception):
    """Another process has taken the lease over: it was not renewed in time, or the server ignores conditions."""


class Lease:
    """A right, held while the block runs: a small file that is created conditionally and renewed until the end.

    It becomes free when its holder releases it, has not renewed it for `seconds`, or was a process of this machine that
    has ended. Where a server ignores conditions, the file is read back: of two processes that both believe they hold
    the lease, one soon learns from `check` that it does not.

    Args:
        patience: seconds to wait for a live holder before HeldError is raised.
        on_wait: called once with the seconds that it may take to tell whether a silent holder is alive.
    """

    def __init__(
        self,
        files: LeaseFiles,
        name: str,
        *,
        seconds: float,
        patience: float = 0.0,
        on_wait: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.files, self.name, self.seconds, self.patience, self.on_wait = files, name, seconds, patience, on_wait
        self.owner = {**_process(), "lease": uuid.uuid4().hex}
        self.lost = False
        self._beat = 0
        self._ended = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name=f"lease {name}", daemon=True)

    def __enter__(self) -> Lease:
        _HELD.add(self.owner["lease"])  # before the first try: another thread may look at once
        try:
            self._wait()
        except BaseException:
            _HELD.discard(self.owner["lease"])
            raise
        self._renewing.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._ended.set()
        self._renewing.join()
        try:
            seen = None if self.lost else self.files.look(self.name)
            if seen is not None and self._is_ours(seen):
                self.files.delete([self.name], seen.tag)
        except UserError:
            if kind is None:  # otherwise the first error matters more; the lease will lapse
                raise
        finally:
            _HELD.discard(self.owner["lease"])

    @property
    def content(self) -> bytes:
        """The lease as a file: its owner, and the SHA-256 of that line."""
        text = json.dumps({**self.owner, "beat": self._beat}).encode()
        return text + b"\n" + hashlib.sha256(text).hexdigest().encode() + b"\n"

    def check(self) -> None:
        """Asks the store; raises LostError when another process has taken over."""
        if not self.lost:
            self.lost = not self._is_ours(self.files.look(self.name))
        if self.lost:
            raise LostError

    def clear(self) -> None:
        """Removes a lease that was left behind, without taking it."""
        seen = self.files.look(self.name)
        if seen is not None and self._is_free(seen):
            self.files.delete([self.name], seen.tag)

    def _wait(self) -> None:
        begin, first = time.monotonic(), None
        while True:
            seen = self.files.look(self.name)
            if seen is None:
                taken = self.files.create(self.name, self.content)
            elif self._is_ours(seen):  # the answer to a write was lost
                return
            elif self._is_free(seen):
                taken = self.files.swap(self.name, self.content, seen.tag)
            else:
                if first is None:
                    first = seen
                    self.on_wait(self.seconds)
                if seen.tag != first.tag and time.monotonic() - begin >= self.patience:
                    raise HeldError(_holder(seen.content) or {})
                taken = False
            if taken and self._is_ours(self.files.look(self.name)):  # a server may ignore conditions
                return
            if not taken:
                time.sleep(min(1.0, self.seconds / 10))

    def _is_free(self, seen: Seen) -> bool:
        return seen.age > self.seconds or _has_ended(_holder(seen.content))

    def _is_ours(self, seen: Seen | None) -> bool:
        holder = None if seen is None else _holder(seen.content)
        return holder is not None and holder.get("lease") == self.owner["lease"]

    def _renew(self) -> None:
        while not self._ended.wait(self.seconds / 4):
            with contextlib.suppress(UserError):  # when the store can be reached again, the next look tells
                seen = self.files.look(self.name)
                self._beat += 1
                # Where the answer to an earlier try was lost, the condition fails though nobody else has written.
                if seen is None or not self._is_ours(seen):
                    self.lost = True
                elif not self.files.swap(self.name, self.content, seen.tag):
                    self.lost = not self._is_ours(self.files.look(self.name))
            if self.lost:
                return


def _holder(content: bytes) -> dict[str, str] | None:
    """Who holds a lease; None when its file was damaged in transit."""
    text, _, digest = content.rstrip(b"\n").partition(b"\n")
    if hashlib.sha256(text).hexdigest().encode() != digest:
        return None
    holder: dict[str, str] = json.loads(text)
    return holder


def _process() -> dict[str, str]:
    return {"machine": this_machine(), "process": str(os.getpid()), "begun": _begun(os.getpid()) or ""}


def this_machine() -> str:
    """Identifies this machine since its last boot, and its PID namespace (a container has its own)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{platform.node()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{platform.node()} {uuid.getnode()}"


def _begun(process: int) -> str | None:
    """When a process began, in clock ticks; None when there is no such process."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        return None


def _has_ended(holder: Mapping[str, str] | None) -> bool:
    """Whether the holder of a lease was a process of this machine that is gone (or the lease is unreadable)."""
    if holder is None:
        return True
    try:
        if {name: holder[name] for name in ("machine", "process", "begun")} == _process():
            return holder["lease"] not in _HELD  # this process: left by an earlier holder that failed
        return holder["machine"] == this_machine() and (_begun(int(holder["process"])) or "") != holder["begun"]
    except (KeyError, ValueError, TypeError):
        return True
