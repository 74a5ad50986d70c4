"""Folders brought to a local or S3 address through pyarrow.fs."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from pyarrow import fs

from singer_ray.errors import UserError


class Store:
    """A local folder or `s3://bucket/prefix` that receives folders.

    Credentials come from AWS's standard chain (environment, profile, instance role). `endpoint` is the address of an
    S3-compatible server; without it AWS_ENDPOINT_URL_S3 and AWS_ENDPOINT_URL are honoured.

    Raises UserError for an address that cannot be used: other scheme, no such bucket, no permission, no connection.
    """

    def __init__(self, address: str, endpoint: str | None = None) -> None:
        self.address = address.rstrip("/")
        parts = urlsplit(address)
        if parts.scheme in ("", "file"):
            self.filesystem: fs.FileSystem = fs.LocalFileSystem()
            self.root = str(Path(parts.path if parts.scheme else address).absolute())
            parent = next(p for p in (Path(self.root), *Path(self.root).parents) if p.exists())
            if not parent.is_dir() or not os.access(parent, os.W_OK):
                raise UserError(
                    f"export.to {address!r} cannot be written: {parent} is no folder that may be written to."
                )
        elif parts.scheme == "s3":
            if not parts.netloc:
                raise UserError(f"export.to {address!r} names no bucket. Allowed: s3://BUCKET/PREFIX.")
            self.root = f"{parts.netloc}{parts.path}".rstrip("/")
            self.filesystem = _s3(
                endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
            )
            self._check_bucket(parts.netloc)
        else:
            raise UserError(
                f"export.to {address!r} has the scheme {parts.scheme!r}. Allowed: a folder, or s3://BUCKET/PREFIX."
            )

    def put(self, folder: Path, name: str) -> str:
        """Copies `folder` to ADDRESS/`name`; returns that address. Raises UserError when the copy fails."""
        target = f"{self.root}/{name}"
        try:
            self.filesystem.create_dir(target, recursive=True)
            fs.copy_files(
                str(folder.absolute()), target,
                source_filesystem=fs.LocalFileSystem(), destination_filesystem=self.filesystem,
            )  # fmt: skip
        except OSError as error:
            raise UserError(
                f"{folder} could not be copied to {self.address}/{name}: {_reason(error)} It is still in {folder}."
            ) from error
        return f"{self.address}/{name}"

    def _check_bucket(self, bucket: str) -> None:
        try:
            found = self.filesystem.get_file_info(bucket).type != fs.FileType.NotFound
        except OSError as error:
            raise UserError(
                f"export.to {self.address!r} cannot be reached: {_reason(error)} Check credentials, region, endpoint."
            ) from error
        if not found:
            raise UserError(
                f"export.to {self.address!r}: there is no bucket {bucket!r}. Make it first: aws s3 mb s3://{bucket}"
            )


def _s3(endpoint: str | None) -> fs.FileSystem:
    # Failing quickly matters at the start of a search; retries of a real upload are short all the same.
    settings = {"connect_timeout": 10, "request_timeout": 60}
    if endpoint is None:
        return fs.S3FileSystem(**settings)
    parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
    return fs.S3FileSystem(endpoint_override=parts.netloc, scheme=parts.scheme, **settings)


def _reason(error: OSError) -> str:
    text = str(error).splitlines()[0].rstrip(".")
    return f"{text[:300]}."
