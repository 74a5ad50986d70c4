"""How S3 is talked to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from singer_ray.errors import UserError
from singer_ray.storage.secrets import ENDPOINTS, with_password


class S3Settings(Protocol):
    """How to talk to S3; the configuration's export block is such."""

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
    """Settings of who has none of his own."""

    endpoint: str | None = None
    storage_class: str | None = None
    encryption: str | None = None
    kms_key: str | None = None
    tags: Sequence[str] = ()
    attempts: int = 6
    timeout: float = 60.0


def endpoint_of(given: str | None) -> str | None:
    """The S3-compatible server to talk to: as given, else of the environment; None for AWS itself. Raises UserError."""
    found = (
        (given and with_password(given, ENDPOINTS))
        or os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
    )
    if found and not found.startswith(("http://", "https://")):
        raise UserError(f"The endpoint {found!r} has no scheme. Give http://{found} or https://{found}.")
    return found or None
