"""How to talk to servers of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

TIMEOUT = 60.0
"""Seconds without an answer from a server after which a request has failed."""


class S3Settings(Protocol):
    """How to talk to S3; the export block of the configuration satisfies this."""

    @property
    def endpoint(self) -> str | None: ...
    @property
    def storage_class(self) -> str | None: ...
    @property
    def encryption(self) -> str | None: ...
    @property
    def kms_key(self) -> str | None: ...
    @property
    def tags(self) -> Sequence[str]: ...
    @property
    def attempts(self) -> int: ...
    @property
    def timeout(self) -> float: ...


@dataclass(frozen=True)
class Defaults:
    """Default settings, for callers that have none of their own."""

    endpoint: str | None = None
    storage_class: str | None = None
    encryption: str | None = None
    kms_key: str | None = None
    tags: Sequence[str] = ()
    attempts: int = 6
    timeout: float = TIMEOUT
