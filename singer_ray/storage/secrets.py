"""Passwords in addresses: never written, and looked up again where people keep them.

Runs and searches write their settings into folders and buckets that others read. So an address is written without its
password, and read back with the one that the environment has for the same place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from urllib.parse import parse_qsl, urlencode

STUDY_URL = "SINGER_RAY_STUDY_URL"
"""Environment variable with the whole address of a study's database."""
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
"""The same for an S3-compatible server."""
SECRETS = (
    r"(?:[\w.-]*[_.-])?(?:pass|passwd|password|passphrase|pwd|secret|token|credential|credentials|signature|auth)"
    r"|ssl[_-]?password|access[_-]?key|api[_-]?key|account[_-]?key|shared[_-]?key|secret[_-]?\w*key|private[_-]?key"
    r"|x-amz-(?:signature|credential|security-token)|awsaccesskeyid|sessiontoken|accesstoken|key|sig|sas|sas[_-]?token"
)
"""Names of parameters of an address whose values are secrets, as a pattern."""
PASSWORDS = (
    r"(?:[\w.-]*[_.-])?(?:passwd|password|passphrase|pwd|secret|token|auth)|ssl[_-]?password|access[_-]?token"
    r"|access[_-]?key|api[_-]?key|account[_-]?key|secret[_-]?\w*key|private[_-]?key|sas[_-]?token|sas|sig"
)
"""The same, without names that also occur in prose (such as `key=`)."""
_IS_SECRET = re.compile(SECRETS, re.IGNORECASE)
_ADDRESS = re.compile(
    r"(?P<scheme>[A-Za-z][\w+.-]*://)(?:(?P<user>[^/?#]*)@)?(?P<host>[^/?#@]*)(?P<path>[^?#]*)(?P<rest>.*)", re.DOTALL
)


def without_password(address: str) -> str:
    """`db://me:secret@host/x?sslpassword=y&a=b` -> `db://me@host/x?a=b`; other texts are returned as they are."""
    match = _ADDRESS.fullmatch(address)
    if match is None:
        return address
    user = (match["user"] or "").partition(":")[0]
    rest = match["rest"]
    if rest.startswith("?"):
        kept = [(k, v) for k, v in parse_qsl(rest[1:], keep_blank_values=True) if not _IS_SECRET.fullmatch(k)]
        lost = len(kept) < len(parse_qsl(rest[1:], keep_blank_values=True))
        rest = (f"?{urlencode(kept)}" if kept else "") if lost else rest
    return f"{match['scheme']}{f'{user}@' if user else ''}{match['host']}{match['path']}{rest}"


def with_password(address: str, variables: Sequence[str] = (STUDY_URL,)) -> str:
    """An address as an environment variable gives it, password included, if that names the same place.

    One that has a password is returned as it is. Database drivers read PGPASSWORD and ~/.pgpass themselves.
    """
    if without_password(address) != address:
        return address
    known = (os.environ.get(name, "") for name in variables)
    return next((given for given in known if given and _place(given) == _place(address)), address)


def lacks_password(address: str) -> bool:
    """Whether an address names a server and has no password, not even from the environment."""
    match = _ADDRESS.fullmatch(with_password(address))
    return bool(match and match["host"]) and without_password(with_password(address)) == with_password(address)


def _place(address: str) -> tuple[str, str, str] | None:
    """Kind of server, host and database: what two addresses of one study have in common."""
    match = _ADDRESS.fullmatch(address)
    if match is None:
        return None
    return match["scheme"].partition("+")[0].removesuffix("://").lower(), match["host"].lower(), match["path"]
