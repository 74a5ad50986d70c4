"""A real browser, to see what a reader sees: Debian's Chromium, headless, driven by playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for a module: each test opens a context of its own. Skips where there is no Chromium."""
    with _launched() as launched:
        yield launched


@contextmanager
def browser_page(width: int = 1400, height: int = 900) -> Iterator[Page]:
    """A page of a browser that ends with it: playwright's event loop must not run beside other asynchronous code."""
    with _launched() as launched:
        yield launched.new_page(viewport={"width": width, "height": height})


@contextmanager
def _launched() -> Iterator[Browser]:
    binary = next((path for path in map(shutil.which, NAMES) if path), None)
    if binary is None:
        pytest.skip("no chromium on PATH; on Debian: apt-get install -y --no-install-recommends chromium")
    with sync_playwright() as playwright:
        # Chromium refuses its sandbox to root, which containers usually are. Figures in space and parallel coordinates
        # are WebGL, which software must draw where there is no GPU.
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--enable-unsafe-swiftshader"]
        launched = playwright.chromium.launch(executable_path=binary, args=options, timeout=120_000)
        try:
            yield launched
        finally:
            launched.close()
