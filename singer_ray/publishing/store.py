"""Folders brought to a local or S3 address."""

from __future__ import annotations

from pathlib import Path

from pyarrow import fs

from singer_ray.errors import UserError
from singer_ray.storage import Folder, reason


class Store(Folder):
    """A local folder or `s3://bucket/prefix` that receives folders. Raises UserError for one that cannot be used."""

    def __init__(self, address: str, endpoint: str | None = None) -> None:
        super().__init__(address, endpoint, knob="export.to")

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
                f"{folder} could not be copied to {self.address}/{name}: {reason(error)} It is still in {folder}."
            ) from error
        return f"{self.address}/{name}"
