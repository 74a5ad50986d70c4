"""What AWS's own configuration says about S3: the endpoint, and how requests are written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import botocore.session
from botocore.exceptions import BotoCoreError

from singer_ray.errors import UserError
from singer_ray.storage.explain import reason
from singer_ray.storage.secrets import ENDPOINTS, with_password

_CHECKSUMS = "request_checksum_calculation"


def endpoint_of(given: str | None) -> str | None:
    """The S3-compatible server to talk to; None for AWS itself.

    As given, else from the environment, else from AWS's configuration files. Raises UserError for one without a scheme,
    and for files that cannot be read.
    """
    endpoint = (
        (given and with_password(given, ENDPOINTS))
        or os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
        or _in_files()
    )
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise UserError(f"The endpoint {endpoint!r} has no scheme. Give http://{endpoint} or https://{endpoint}.")
    return endpoint or None


def habits_of(endpoint: str | None) -> dict[str, Any]:
    """How a client writes its requests: as AWS's configuration says, else as most servers can read them.

    Raises UserError for files that cannot be read.
    """
    with _explained():
        session = botocore.session.get_session()
        own = {name: value for name, value in (session.get_config_variable("s3") or {}).items() if value is not None}
        checksums = os.environ.get("AWS_REQUEST_CHECKSUM_CALCULATION") or session.get_scoped_config().get(_CHECKSUMS)
    if endpoint is None:
        return {"s3": own or None}
    # Few smaller servers have a host name for each bucket; older ones do not understand checksums in trailers.
    return {"s3": {"addressing_style": "path", **own}} | ({} if checksums else {_CHECKSUMS: "when_required"})


def _in_files() -> str | None:
    """The endpoint in AWS's configuration files: that of S3, else that of all services."""
    if os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return None
    with _explained():
        session = botocore.session.get_session()
        profile = session.get_scoped_config()
        services = session.full_config.get("services", {}).get(profile.get("services"), {})
    endpoint: str | None = (services.get("s3") or {}).get("endpoint_url") or profile.get("endpoint_url")
    return endpoint


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except BotoCoreError as error:
        raise UserError(f"AWS's configuration cannot be used: {reason(error)} Correct it, or AWS_PROFILE.") from error
