"""Folders at local paths and in S3: files in them, what only S3 can, and leases."""

from singer_ray.storage.explain import reason, without_credentials
from singer_ray.storage.folder import DRAFT, TIMEOUT, Folder, hashed

__all__ = ["DRAFT", "TIMEOUT", "Folder", "hashed", "reason", "without_credentials"]
