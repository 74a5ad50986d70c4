"""The training, validation and test sets that a configuration names."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from singer_ray.config.sources import SOURCES
from singer_ray.data.source import Source

if TYPE_CHECKING:
    from singer_ray.config import SourceConfig

Splits = Mapping[str, Source]
"""Any of "train", "val" and "test"."""


def open_splits(settings: SourceConfig, block: str = "data") -> dict[str, Source]:
    """The sets that `settings` name; `block` is their dotted name, for messages. Raises UserError if one is missing."""
    opener: Callable[[SourceConfig, str], dict[str, Source]] = pkgutil.resolve_name(SOURCES[settings.source].opener)
    return opener(settings, block)
