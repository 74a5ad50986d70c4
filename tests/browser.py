"""A real browser for pages that people open: Debian's Chromium, headless, driven by playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for a module: each test opens a context of its own. Skips where there is no Chromium.

    Not longer: beside playwright's event loop no other asynchronous code of the same thread could run.
    """
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        pytest.skip("no chromium on PATH: apt-get install -y --no-install-recommends chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Figures in space and parallel coordinates are WebGL, which software must draw where there is no GPU.
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--enable-unsafe-swiftshader"]
        launched = playwright.chromium.launch(executable_path=found, args=options, timeout=120_000)
        try:
            yield launched
        finally:
            launched.close()
