"""What is shown of texts that come from outside."""

from __future__ import annotations

import pytest

from singer_ray.errors import printable


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain", "plain"),
        ("caf\u00e9 \u65e5", "caf\u00e9 \u65e5"),
        ("two\nlines\tand  more", "two lines and more"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("bad\udce9name", "bad\\udce9name"),
        ("right\u202eleft", "right\\u202eleft"),
        (["list"], "['list']"),
    ],
)
def test_it_is_one_harmless_line(given: object, shown: str) -> None:
    assert printable(given) == shown


def test_it_is_short() -> None:
    assert len(printable("x" * 10_000_000)) < 320
    assert printable("a" * 200 + "b" * 200, limit=100).startswith("aaa")
    assert printable("a" * 200 + "b" * 200, limit=100).endswith("bbb")
