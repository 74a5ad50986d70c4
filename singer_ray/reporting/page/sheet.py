"""What the pages about searches and about runs share: sections, figures, and the document around them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import plotly.offline

from singer_ray import __version__
from singer_ray.errors import UserError
from singer_ray.reporting.page.style import Figure
from singer_ray.reporting.text import escape, moment
from singer_ray.storage import write_whole

_LESS = "\\u003c"
"""Data hold names and error texts as they came: none may close the script element around them."""
_ASSETS = Path(__file__).parent / "assets"


class Sheet:
    """Collects sections and numbers figures."""

    def __init__(self) -> None:
        self.contents: list[tuple[str, str]] = []
        self._figures = 0

    def section(self, name: str, title: str, content: str, link: str = "") -> str:
        """Nothing when there is no content. `link` is a shorter title for the page's head."""
        if not content.strip():
            return ""
        self.contents.append((name, link or title))
        return f'<section id="{name}"><h2>{escape(title)}</h2>\n{content}</section>'

    def plot(self, made: Figure) -> str:
        """The place of a figure and its data."""
        self._figures += 1
        data = str(made.to_json()).replace("<", _LESS)
        height = int(made.layout.height)
        return (
            f'<div class="plot" id="figure-{self._figures}" style="height:{height}px"></div>'
            f'<script type="application/json" data-for="figure-{self._figures}">{data}</script>'
        )


def document(
    name: str, kind: str, contents: Sequence[tuple[str, str]], body: str, folder: Path, *, choice: str = ""
) -> str:
    """The whole page as HTML. `contents` are (id, title) of the sections, `choice` a control for the page's head."""
    links = "".join(f'<a href="#{section}">{escape(title)}</a>' for section, title in contents)
    return _TEMPLATE.format(
        title=escape(name),
        kind=kind,
        style=_asset("report.css"),
        script=_asset("report.js"),
        links=links,
        choice=choice,
        plotly=_plotly(),
        body=body,
        version=escape(__version__),
        written=moment(datetime.now()),
        folder=escape(folder),
    )


def write_page(target: Path, content: str) -> None:
    """Writes a page whole or not at all. Raises UserError."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, content)
    except OSError as error:
        raise UserError(
            f"The report cannot be written to {target}: {error.strerror or error}. Give another file with --out."
        ) from error


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _plotly() -> str:
    """plotly.js, with nothing in it that could close the script element around it."""
    return str(plotly.offline.get_plotlyjs()).replace("</script", "<\\/script")


_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}: {kind}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<nav><div class="inner"><span class="links">{links}</span>{choice}
<button id="theme" type="button" title="Light or dark">◐</button></div></nav>
<main>
{body}
</main>
<footer>Written {written} by singer_ray {version} from {folder}. This page needs no network.</footer>
<script>{plotly}</script>
<script>
{script}</script>
</body>
</html>
"""
