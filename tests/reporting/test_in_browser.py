"""The page in a real browser that has no network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from singer_ray.reporting.page.search_page import build_report
from tests.reporting.searches import REFINERS, fake_search

WAIT = 120_000
"""Milliseconds: a busy machine without a GPU draws slowly."""


class Opened:
    """A page and what it complained of or asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.set_default_timeout(WAIT)

    def open(self, path: Path) -> Page:
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("body[data-ready]")
        return self.page


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opened]:
    context = browser.new_context(offline=True, viewport={"width": 1100, "height": 800}, color_scheme="light")
    yield Opened(context.new_page())
    context.close()


def sizes(page: Page) -> list[float]:
    """The area drawn in each visible figure."""
    found: list[float] = page.evaluate(
        """() => [...document.querySelectorAll('.plot')].filter((p) => !p.closest('[hidden]')).map((plot) =>
          Math.max(0, ...[...plot.querySelectorAll('svg, canvas')].map((part) => {
            const box = part.getBoundingClientRect(); return box.width * box.height; })))"""
    )
    return found


@pytest.mark.slow
def test_everything_is_drawn_without_network(opened: Opened, tmp_path: Path) -> None:
    """One search with conditional parameters and two objectives; its figures for either."""
    objectives = ("val/miou", "student/parameters")
    page = opened.open(build_report(fake_search(tmp_path / "search", space=REFINERS, trials=60, objectives=objectives)))
    first = sizes(page)
    assert len(first) > 8
    assert min(first) > 10_000
    page.select_option("#objective", "1")
    page.wait_for_function(
        "[...document.querySelectorAll('.plot')].every((p) => p.closest('[hidden]') || p.dataset.drawn)"
    )
    assert min(sizes(page)) > 10_000
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.mark.slow
def test_tables_sort_filter_and_are_found_from_links(opened: Opened, finished: Path, tmp_path: Path) -> None:
    page = opened.open(build_report(finished, tmp_path / "page.html"))

    def column(title: str) -> list[str]:
        place = page.locator("#trials th").all_inner_texts()
        at = next(n for n, text in enumerate(place, start=1) if text.split(" ")[0] == title)
        return page.locator(f"#trials tbody tr:not([hidden]) td:nth-child({at})").all_inner_texts()

    assert column("#") == [str(n) for n in range(1, 41)]
    page.locator("#trials th", has_text="lr").click()
    rates = [float(text) for text in column("lr")]
    assert rates == sorted(rates)
    page.locator("#trials th", has_text="lr").click()
    assert [float(text) for text in column("lr")] == rates[::-1]
    page.locator("#trials th", has_text="test/miou").click()
    known = [text for text in column("test/miou") if text]
    assert column("test/miou")[: len(known)] == sorted(known), "what is missing comes last"
    page.uncheck(".tools input[value=PRUNED]")
    assert set(column("state")) == {"finished", "failed"}
    page.fill(".tools input[type=search]", "diverged")
    assert set(column("state")) == {"failed"}
    page.locator("a.trial").first.click()
    assert page.locator("#trials tr.found").is_visible(), "a link shows its row even when a filter hid it"
    assert opened.complaints == []


@pytest.mark.long
def test_the_page_turns_dark_with_its_figures(opened: Opened, tmp_path: Path) -> None:
    page = opened.open(build_report(fake_search(tmp_path / "search", trials=4, states=["RUNNING", "FAIL"])))

    def colours() -> list[str]:
        found: list[str] = page.evaluate(
            """() => [getComputedStyle(document.body).backgroundColor,
              getComputedStyle(document.querySelector('.plot .main-svg')).backgroundColor]"""
        )
        return found

    light = colours()
    page.click("#theme")
    page.wait_for_function(
        f"getComputedStyle(document.querySelector('.plot .main-svg')).backgroundColor != '{light[1]}'"
    )
    for was, now in zip(light, colours()):
        assert brightness(was) > 200
        assert brightness(now) < 60
    assert opened.complaints == []


def brightness(colour: str) -> float:
    parts = [float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    return sum(parts) / 3


@pytest.mark.long
def test_the_page_is_loaded_when_its_figures_are_drawn_also_for_paper(opened: Opened, tmp_path: Path) -> None:
    """Whoever prints or photographs a page waits for its load event, and for nothing else."""
    path = build_report(fake_search(tmp_path / "search", space=REFINERS, trials=20))
    page = opened.page
    page.add_init_script(
        """addEventListener("load", () => {
          const plots = [...document.querySelectorAll(".plot")].filter((plot) => !plot.closest("[hidden]"));
          window.found = [plots.length, plots.filter((plot) => plot.dataset.drawn).length,
            plots.filter((plot) => plot.nextElementSibling.matches("img.paper")).length];
        })"""
    )
    page.goto(path.as_uri(), wait_until="load")
    shown, drawn, copied = page.evaluate("window.found")
    assert shown > 6
    assert (drawn, copied) == (shown, shown)
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": 720, "height": 1000})
    sizes_on_paper: list[list[float]] = page.evaluate(
        "[...document.querySelectorAll('.paper')].map((p) => [p.naturalWidth, p.getBoundingClientRect().width])"
    )
    assert all(natural > 300 and width > 250 for natural, width in sizes_on_paper)
    assert not page.locator(".plot").first.is_visible(), "its copy stands in its place"
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert brightness(colour) > 200, "paper is light"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is cut off"
    assert opened.complaints == []
