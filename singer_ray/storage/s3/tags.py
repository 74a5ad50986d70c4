"""The ETags of S3: hashes of contents, as the server has received them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

MIB = 1 << 20
MULTIPART = 16 * MIB
"""Contents from this size on are sent in parts."""
PART = 16 * MIB
MOST_PARTS = 10_000


def part_size(size: int) -> int:
    """Bytes of each part of a content of `size` bytes."""
    return max(PART, math.ceil(size / MOST_PARTS))


def tag_of(path: Path) -> str:
    """The ETag that S3 gives a file that `S3Store.put_file` sends, unless it is encrypted with KMS."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size < MULTIPART:
            return md5_of(file.read())
        step = part_size(size)
        return tag_of_parts([md5_of(file.read(step)) for _ in range(math.ceil(size / step))])


def tag_of_parts(parts: Sequence[str]) -> str:
    """The ETag of an upload whose parts have these MD5s."""
    return f"{md5_of(b''.join(map(bytes.fromhex, parts)))}-{len(parts)}"


def md5_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
