"""README says what the kept figures say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.benchmarks import efficiency

ROOT = Path(__file__).parents[1]


def figures(name: str) -> Any:
    return json.loads((ROOT / "tests" / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))["metrics"]


def short(number: float) -> str:
    """Two decimals at most, as README writes them."""
    return f"{number:.2f}".rstrip("0").rstrip(".").lstrip("0")


def test_what_a_search_costs_is_what_was_measured() -> None:
    overhead, simulated = figures("overhead")["figures"], figures("simulated")
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"a host's first trial {overhead['first']:.0f} s more than the bare loop (imports)" in text
    assert f"each later one {short(round(overhead['later'], 1))} s more" in text
    assert (
        f"Ray starts for {overhead['start_up']:.0f} s and a few steps are timed for {overhead['forecast']:.0f} s"
        in text
    )
    assert f"packages and report take {overhead['after_the_last_trial']:.0f} s" in text
    tpe, gp = (simulated["suggestions"][f"{name} 500"]["median"] for name in ("tpe", "gp"))
    assert f"a TPE suggestion takes {1000 * tpe:.0f} ms, one of GP {short(gp)} s" in text
    assert f"book-keeping adds {1000 * simulated['added']['added']:.0f} ms a trial" in text


def test_how_fast_a_package_goes_up_is_what_was_measured() -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"goes up at {short(figures('upload')['store']['share_of_boto3'])} of the speed of boto3's own" in text


def test_what_a_search_gains_is_what_was_measured() -> None:
    raw = json.loads(efficiency.RAW.read_text(encoding="utf-8"))["metrics"]
    assert efficiency.as_markdown(raw) in (ROOT / "README.md").read_text(encoding="utf-8")
