"""README says what the kept figures say."""

from __future__ import annotations

import json
from pathlib import Path

from tests.benchmarks import efficiency

ROOT = Path(__file__).parents[1]


def test_what_a_search_gains_is_what_was_measured() -> None:
    raw = json.loads(efficiency.RAW.read_text(encoding="utf-8"))["metrics"]
    assert efficiency.as_markdown(raw) in (ROOT / "README.md").read_text(encoding="utf-8")
