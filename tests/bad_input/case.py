"""What a table of wrong inputs consists of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Trees = Callable[..., Path]
"""The fixture `image_tree`."""
Case = tuple[str, list[str], str]
"""Command, its arguments, and what the one line must contain; `{name}` stands for a place that the table makes."""
Places = Callable[[Trees, Path], dict[str, str]]
"""Makes the files that the cases of a table name, in a folder; returns their paths by name."""
