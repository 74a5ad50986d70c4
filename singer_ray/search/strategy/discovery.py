"""Finds the samplers and pruners: a file in their folder is one, and its name is the setting's value."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any

BASE = "base"
"""The one file of such a folder that defines the interface instead."""


def discover(package: str, attribute: str, order: Sequence[str]) -> dict[str, Any]:
    """The `attribute` of each module of a package, by the module's name: first those in `order`, then any others."""
    names = {module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__)} - {BASE}
    ordered = [*(name for name in order if name in names), *sorted(names - set(order))]
    return {name: getattr(importlib.import_module(f"{package}.{name}"), attribute) for name in ordered}
