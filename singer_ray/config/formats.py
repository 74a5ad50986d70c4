"""Files of settings that earlier versions wrote: what they meant then, in today's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from singer_ray.errors import UserError, printable

FORMAT = 2
"""Of config.yaml; 1 had no number."""
_WHOLE = ("seed", "data", "method", "train", "evaluation", "search", "export")
"""Blocks that the program writes into every config.yaml, and that no one writes by hand all together."""


def upgraded(tree: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The settings of a YAML file, without its format number, and meaning what they meant when they were written.

    A file without number is of format 1 when it holds the whole tree, as the program writes it; else somebody wrote it
    by hand, for this version. Raises UserError for a format that is not known.
    """
    settings = dict(tree)
    format_number = settings.pop("format", 1 if all(isinstance(tree.get(n), Mapping | int) for n in _WHOLE) else FORMAT)
    if format_number not in range(1, FORMAT + 1):
        raise UserError(
            f"{where} has the format {printable(repr(format_number), 40)}; this version reads 1 to {FORMAT}. Use the "
            "singer_ray that wrote it."
        )
    return _from_first(settings) if format_number == 1 else settings


def _from_first(settings: dict[str, Any]) -> dict[str, Any]:
    """Format 1: the adapter of the variant recommended started from the null space, and was trained on."""
    method = settings["method"]
    if not isinstance(method, Mapping):
        return settings
    then = {"freeze": False, **method}
    if then.get("variant", "recommended") == "recommended" and then.get("linearization", "auto") == "auto":
        then["linearization"] = "attention_mlp"
    return {**settings, "method": then}
