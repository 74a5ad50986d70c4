"""Figures and parameters as trackers take them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote


def figures(result: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers in a result, by name."""
    numbers = {k: v for k, v in result.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def ascii_only(text: str) -> str:
    """A text for what takes nothing else: ö becomes %C3%B6, so that no two texts become one."""
    return "".join(c if " " <= c <= "~" else quote(c, errors="surrogatepass") for c in text)


def describe(parameters: Mapping[str, Any]) -> str:
    """Parameters in a few words: rank=16 lr=0.004."""
    return " ".join(f"{name.rpartition('.')[2]}={_short(value)}" for name, value in parameters.items())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
