"""Addresses of folders, places in S3 and databases, read in one way by the whole program.

Nothing is decoded or cut off: `#`, `?`, `%`, spaces and letters of any alphabet are part of the name. Only in addresses
of databases does `?` begin the options.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from singer_ray.errors import UserError, printable
from singer_ray.storage.stores import FILE, STORES

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SERVERS = tuple(scheme for scheme in STORES if scheme != FILE)
_MISTYPED = re.compile(r"(s3|gs|file|https?|ftp):", re.IGNORECASE)
"""A text that begins like this is an address without its slashes, not a folder's name."""
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", re.ASCII)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*|arn:[A-Za-z0-9:_-]+")
_LONGEST = 255
"""Bytes of a file name; file systems accept no more."""


@dataclass(frozen=True)
class Address:
    """A folder of this machine, or a place in a server's bucket."""

    text: str
    """For messages and for `--resume`; without trailing slashes."""
    folder: Path | None = None
    """Absolute; None on a server."""
    bucket: str = ""
    key: str = ""
    """Path in the bucket, without slashes at either end; empty for the bucket itself."""
    scheme: str = FILE
    """That of its store, one of `STORES`."""

    @classmethod
    def of(cls, text: str, setting: str = "the address") -> Address:
        """Reads a path, file://PATH, or s3://BUCKET/KEY.

        Raises UserError for another scheme, an address without a bucket, and names that no store can hold.
        """
        scheme, rest = split(text)
        shown = f"{setting} {printable(text)!r}"
        allowed = f"Allowed: a folder, or {' or '.join(f'{server}://BUCKET/PREFIX' for server in _SERVERS)}."
        if scheme in _SERVERS:
            return _on_server(scheme, shown, rest)
        if scheme not in ("", FILE):
            raise UserError(f"{shown} has the scheme {scheme!r}. {allowed}")
        if not scheme and _MISTYPED.match(text):
            raise UserError(f"{shown} lacks the two slashes behind its scheme. {allowed}")
        if scheme and not rest.startswith("/"):
            raise UserError(f"{shown} is no absolute path. Give file:///PATH, or the path alone.")
        problem = path_problem(rest)
        if problem:
            raise UserError(f"{shown} cannot be a path: {problem}. Give another folder.")
        return cls(rest.rstrip("/") or "/", Path(rest).absolute())

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.key.rpartition("/")[2] if self.folder is None else self.folder.resolve().name

    def uri(self, endpoint: str | None = None) -> str:
        """For Ray and pyarrow, which read it as a URI: a folder's path, or s3:// with its key encoded."""
        if self.folder is not None:
            return str(self.folder)
        scheme, _, host = (endpoint or "").partition("://")
        server = f"?scheme={scheme}&endpoint_override={quote(host.rstrip('/'), safe='')}" if endpoint else ""
        return f"{self.scheme}://{self.bucket}/{quote(self.key, safe='/')}{server}"


def _on_server(scheme: str, shown: str, rest: str) -> Address:
    bucket, _, key = rest.partition("/")
    if not bucket:
        raise UserError(f"{shown} names no bucket. Allowed: {scheme}://BUCKET/PREFIX.")
    if not _BUCKET.fullmatch(bucket):
        raise UserError(
            f"{shown} names the bucket {printable(bucket)!r}. Allowed: letters, digits, dots and dashes. Correct it."
        )
    key = key.strip("/")
    parts = key.split("/") if key else []
    problem = next((p for p in map(_name_problem, filter(None, parts)) if p), None)
    if problem is None and len(key.encode("utf-8", "surrogateescape")) > 1024:
        problem = f"{scheme.upper()} takes 1,024 bytes"
    if problem:
        raise UserError(f"{shown} cannot be a place in {scheme.upper()}: {problem}. Give another prefix.")
    return Address("/".join((f"{scheme}:/", bucket, *parts)), None, bucket, key, scheme)


def split(text: str) -> tuple[str, str]:
    """(scheme in lower case, what follows `://`); ("", text) without a scheme."""
    match = _SCHEME.match(text)
    return (match[1].lower(), text[match.end() :]) if match else ("", text)


def is_folder(text: str) -> bool:
    """Whether an address is that of a folder of this machine rather than of a place on a server."""
    return split(text)[0] in ("", FILE)


def absolute(address: str) -> str:
    """The address of a folder or of a SQLite file made absolute; any other address as it is."""
    scheme, rest = split(address)
    if scheme == FILE or not (scheme or _MISTYPED.match(address)):
        return str(Path(rest).absolute())
    if _is_sqlite(scheme):
        path, mark, options = rest.removeprefix("/").partition("?")
        if rest.startswith("/") and path and not path.startswith((":memory:", "file:")):
            return f"{scheme}:///{Path(path).absolute()}{mark}{options}"
    return address


def expanded(text: str) -> str:
    """A path or address with `~`, $NAME and ${NAME} expanded.

    Of databases only SQLite's addresses are expanded: in others a `$` may belong to a password. Raises ValueError,
    which says what is allowed, for an empty text, a variable that is not set, an unknown user, and anything that cannot
    be a path.
    """
    prefix = "local-dir:" if text.startswith("local-dir:") else ""
    scheme, rest = split(text[len(prefix) :])
    if scheme not in ("", *STORES) and not _is_sqlite(scheme):
        return text
    if not rest:
        raise ValueError("a path or an address (this one is empty)")
    begin = text[: len(text) - len(rest)]
    if _is_sqlite(scheme):  # sqlite:///PATH
        begin, rest = f"{begin}{rest[:1]}", rest[1:]
    rest = _VARIABLE.sub(lambda match: _variable(match, rest), rest)
    if scheme not in _SERVERS and rest.startswith("~"):
        rest = _at_home(rest)
    problem = path_problem(rest)
    if problem:
        raise ValueError(f"a path ({problem})")
    return begin + rest


def expanded_as(text: str, setting: str) -> str:
    """The same for the value of `setting`. Raises UserError."""
    try:
        return expanded(text)
    except ValueError as error:
        raise UserError(f"{setting} is {printable(text)!r}. Allowed: {error}. Correct it.") from error


def own_name(folder: Path) -> str:
    """The last part of a folder's path, also of `.` and `..`."""
    return folder.name if folder.name not in ("", "..") else Path(os.path.abspath(folder)).name


def leads_out(name: str) -> bool:
    """Whether a file name could lead out of the folder that it is relative to."""
    return "\0" in name or any(part in ("", ".", "..") for part in name.split("/"))


def is_plain(name: str) -> bool:
    """Whether a file name (`/` between parts) can be published: every store and file system accepts it."""
    usual = "\\" not in name and all(c.isprintable() for c in name) and len(name.encode("utf-8", "replace")) <= 900
    return usual and not any(_name_problem(part) for part in name.split("/"))


def path_problem(path: str) -> str | None:
    """Why a text cannot be a path on this machine, in words; None when it can."""
    if "\0" in path:
        return "it holds a null byte"
    if _is_undecodable(path):
        return "it is not in UTF-8: rename the folder"
    return next((_too_long(part) for part in path.split("/") if len(part.encode()) > _LONGEST), None)


def _name_problem(part: str) -> str | None:
    if part in ("", ".", ".."):
        return f"it has a part {part!r}"
    if any(ord(c) < 32 or ord(c) == 127 for c in part):
        return "it holds control characters"
    if _is_undecodable(part):
        return "it is not in UTF-8"
    return _too_long(part) if len(part.encode()) > _LONGEST else None


def _too_long(part: str) -> str:
    return f"the name {printable(part, 20)} is {len(part.encode())} bytes long, and {_LONGEST} is the most"


def _is_undecodable(text: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in text)


def _is_sqlite(scheme: str) -> bool:
    return scheme.partition("+")[0] == "sqlite"


def _variable(match: re.Match[str], text: str) -> str:
    name = match[1] or match[2]
    if name in os.environ:
        return os.environ[name]
    # A folder's name may contain a `$`; then the path is meant literally.
    end = text.find("/", match.end())
    if os.path.lexists(text if end < 0 else text[:end]):
        return match[0]
    raise ValueError(f"a path whose variables are set (${name} is not)")


def _at_home(path: str) -> str:
    at_home = os.path.expanduser(path)
    user = path.partition("/")[0]
    if at_home == path and not os.path.lexists(user):
        raise ValueError(f"a path (there is no user {user.removeprefix('~')!r})")
    return at_home
