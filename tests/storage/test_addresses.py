"""Addresses in texts: what they lose before anyone else reads them."""

from __future__ import annotations

import pytest

from singer_ray.storage import without_credentials


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("postgresql://me:pa/ss@host:5432/db", "postgresql://***@host:5432/db"),
        ("mysql://me:p@ss'w@host/db", "mysql://***@host/db"),
        ('{"a": "redis://:secret@h", "b": "x@y"}', '{"a": "redis://***@h", "b": "x@y"}'),
        ("https://h/o?X-Amz-Signature=abc&size=3", "https://h/o?X-Amz-Signature=***&size=3"),
        ("postgresql://h/db?user=me&password=secret", "postgresql://h/db?user=me&password=***"),
        ("s3://bucket/a@b, http://localhost:8265", "s3://bucket/a@b, http://localhost:8265"),
    ],
)
def test_addresses_lose_their_secrets(text: str, cleaned: str) -> None:
    assert without_credentials(text) == cleaned


def test_addresses_lose_their_credentials() -> None:
    text = without_credentials("study: postgresql://me:secret@host:5432/db and https://key@host/x")
    assert text == "study: postgresql://***@host:5432/db and https://***@host/x"
