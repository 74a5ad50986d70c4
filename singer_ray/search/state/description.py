"""Reads search.json, the description of a search, and says in one line what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from singer_ray.errors import UserError, printable
from singer_ray.storage import read_json_mapping

_RESTORE = "Restore it from a copy; report goes by the study alone once it is removed."
_SPENT = {"begin": False, "end": False, "gpu_hours": False, "money": True}
"""What each session must have; True where it may be null."""
_HELD = ("nodes", "concurrent", "gpus")


def description(content: bytes | str, where: str) -> dict[str, Any]:
    """The parsed content of a search.json; `where` names it in messages.

    It has `name`, `study` (the database's address, None for the journal) and `sessions` (each with `begin`, `end`,
    `gpu_hours`, `money`, `nodes`, `concurrent` and `gpus`), and possibly more. Raises UserError where one is missing.
    """
    record = read_json_mapping(content, where, _RESTORE)
    problem = _problem(record)
    if problem:
        raise UserError(f"{printable(where)} {problem}: it was cut off, or is not of singer_ray.tune. {_RESTORE}")
    return record


def _problem(record: Mapping[str, Any]) -> str | None:
    if not isinstance(record.get("name"), str) or not record["name"]:
        return "has no name"
    if "study" not in record or not isinstance(record["study"], (str, type(None))):
        return "has no study"
    if not isinstance(record.get("sessions"), list):
        return "has no sessions"
    for number, session in enumerate(record["sessions"], start=1):
        if not isinstance(session, dict):
            return f"has no mapping for session {number}"
        for name, may_miss in _SPENT.items():
            if not _is_number(session.get(name)) and not (may_miss and session.get(name, 0) is None):
                return f"has no {name} of session {number}"
        for name in _HELD:
            session.setdefault(name, None)
            if session[name] is not None and not _is_number(session[name]):
                return f"has no {name} of session {number}"
    for name in ("price_per_node_hour", "seconds", "gpu_hours", "money"):
        amount = record.get(name)
        if amount is not None and not _is_number(amount):
            return f"has no number for {name}"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
