"""Searches that several tests read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reporting.searches import fake_search


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 trials, two sessions, the leaders repeated with three seeds, five rows of an earlier search."""
    return fake_search(tmp_path_factory.mktemp("searches") / "finished", repeats=3, sessions=2, imported=5)
