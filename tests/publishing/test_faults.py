"""Packages published through faults; `make test-publish-long` runs many more seeds."""

from __future__ import annotations

import pytest

from tests.publishing.faults import KILL, KINDS, STORM, run_seed

PLANS = [*KINDS, KILL, STORM]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(len(PLANS)), ids=PLANS)
def test_a_package_is_whole_after_a_retry(server: str, bucket: str, seed: int) -> None:
    assert run_seed(server, seed)["hit"]
