"""Folders at local paths and in S3: files in them, what only S3 can, and leases."""

from singer_ray.storage.folder import (
    DRAFT,
    TIMEOUT,
    Folder,
    endpoint_of,
    hashed,
    reason,
    without_credentials,
)

__all__ = ["DRAFT", "TIMEOUT", "Folder", "endpoint_of", "hashed", "reason", "without_credentials"]
