"""The stores by the schemes of their addresses, imported on demand: each needs libraries of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from singer_ray.storage.address import Address
    from singer_ray.storage.local import LocalStore
    from singer_ray.storage.protocol import ObjectStore
    from singer_ray.storage.s3.store import S3Store
    from singer_ray.storage.settings import S3Settings


def _local() -> type[LocalStore]:
    from singer_ray.storage.local import LocalStore

    return LocalStore


def _s3() -> type[S3Store]:
    from singer_ray.storage.s3.store import S3Store  # imports boto3

    return S3Store


FILE = "file"
"""The scheme of folders of this machine, which may be left out."""
STORES: Mapping[str, Callable[[], Callable[[Address, S3Settings], ObjectStore]]] = {FILE: _local, "s3": _s3}
"""Scheme -> what imports the class of its store."""


def open_store(place: Address, settings: S3Settings) -> ObjectStore:
    """The store at an address; nothing is requested from it yet."""
    return STORES[place.scheme]()(place, settings)
