"""Folders at a local path or at s3://bucket/prefix, through pyarrow.fs."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from pyarrow import fs

from singer_ray.errors import UserError


class Folder:
    """Files below one address; names are relative to it, with `/` between parts.

    Credentials come from AWS's standard chain (environment, profile, instance role). `endpoint` is the address of an
    S3-compatible server; without it AWS_ENDPOINT_URL_S3 and AWS_ENDPOINT_URL are honoured.

    Args:
        address: a path, file://PATH, or s3://BUCKET/PREFIX.
        knob: how the user calls the address, for messages.

    Raises UserError for an address that cannot be used: other scheme, no such bucket, no permission, no connection.
    """

    def __init__(self, address: str, endpoint: str | None = None, *, knob: str = "the address") -> None:
        self.address, self.endpoint, self.knob = address.rstrip("/") or "/", endpoint, knob
        parts = urlsplit(address)
        self.is_local = parts.scheme in ("", "file")
        if self.is_local:
            self.root = str(Path(parts.path if parts.scheme else address).absolute())
            parent = next(p for p in (Path(self.root), *Path(self.root).parents) if p.exists())
            if not parent.is_dir() or not os.access(parent, os.W_OK):
                raise UserError(f"{knob} {address!r} cannot be written: {parent} is no folder that may be written to.")
        elif parts.scheme == "s3":
            if not parts.netloc:
                raise UserError(f"{knob} {address!r} names no bucket. Allowed: s3://BUCKET/PREFIX.")
            self.root = f"{parts.netloc}{parts.path}".rstrip("/")
        else:
            raise UserError(
                f"{knob} {address!r} has the scheme {parts.scheme!r}. Allowed: a folder, or s3://BUCKET/PREFIX."
            )
        self._filesystem: fs.FileSystem | None = None
        if not self.is_local:
            self._check_bucket(parts.netloc)

    @property
    def filesystem(self) -> fs.FileSystem:
        """pyarrow's view of it; names are below `root`."""
        if self._filesystem is None:
            self._filesystem = fs.LocalFileSystem() if self.is_local else _s3(endpoint_of(self.endpoint))
        return self._filesystem

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_filesystem": None}  # a connection stays in the process that made it

    def below(self, name: str) -> Folder:
        """The folder `name` in this one."""
        inner = object.__new__(Folder)
        inner.__dict__ |= self.__dict__
        inner.address, inner.root = f"{self.address}/{name}", f"{self.root}/{name}"
        return inner

    def read(self, name: str) -> bytes | None:
        """The content of a file, None when there is none. Raises UserError when it cannot be read."""
        try:
            with self.filesystem.open_input_stream(f"{self.root}/{name}") as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{self.address}/{name} cannot be read: {reason(error)}") from error

    def write(self, name: str, content: bytes) -> str:
        """Writes a file whole or not at all, over an earlier one; returns its address. Raises UserError."""
        target = f"{self.root}/{name}"
        try:
            if self.is_local:
                path = Path(target)
                path.parent.mkdir(parents=True, exist_ok=True)
                draft = path.with_name(f"{path.name}.part")
                draft.write_bytes(content)
                draft.replace(path)
            else:  # an object appears when its upload has ended, and not before
                with self.filesystem.open_output_stream(target) as stream:
                    stream.write(content)
        except OSError as error:
            raise UserError(f"{self.address}/{name} could not be written: {reason(error)}") from error
        return f"{self.address}/{name}"

    def names(self, below: str = "") -> list[str]:
        """The names of all files in it, or in its folder `below`, sorted. Raises UserError."""
        selector = fs.FileSelector(f"{self.root}/{below}".rstrip("/"), recursive=True, allow_not_found=True)
        try:
            found = self.filesystem.get_file_info(selector)
        except OSError as error:
            raise UserError(f"{self.address} cannot be listed: {reason(error)}") from error
        files = [info.path for info in found if info.type == fs.FileType.File]
        return sorted(str(PurePosixPath(path).relative_to(self.root.lstrip("/") if not self.is_local else self.root))
                      for path in files)  # fmt: skip

    def delete(self, name: str) -> None:
        """Removes a file, if it is there. Raises UserError."""
        try:
            self.filesystem.delete_file(f"{self.root}/{name}")
        except FileNotFoundError:
            return
        except OSError as error:
            raise UserError(f"{self.address}/{name} could not be removed: {reason(error)}") from error

    def _check_bucket(self, bucket: str) -> None:
        try:
            found = self.filesystem.get_file_info(bucket).type != fs.FileType.NotFound
        except OSError as error:
            raise UserError(
                f"{self.knob} {self.address!r} cannot be reached: {reason(error)} Check credentials, region, endpoint."
            ) from error
        if not found:
            raise UserError(
                f"{self.knob} {self.address!r}: there is no bucket {bucket!r}. Make it first: aws s3 mb s3://{bucket}"
            )


def endpoint_of(given: str | None) -> str | None:
    """The S3-compatible server to talk to: as given, else of the environment; None for AWS itself."""
    return given or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def reason(error: Exception) -> str:
    """An error of the file system as one sentence."""
    text = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    return f"{text[:300]}."


def _s3(endpoint: str | None) -> fs.FileSystem:
    # Failing quickly matters at the start of a search; retries of a real upload are short all the same.
    settings = {"connect_timeout": 10, "request_timeout": 60}
    if endpoint is None:
        return fs.S3FileSystem(**settings)
    parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
    return fs.S3FileSystem(endpoint_override=parts.netloc, scheme=parts.scheme, **settings)
