"""A search as one page that opens offline, anywhere."""

from __future__ import annotations

import os
from pathlib import Path

from singer_ray.config import Config, load_preset
from singer_ray.errors import UserError
from singer_ray.layout import CONFIG, REPORT
from singer_ray.reporting.page import parameter_figures, pareto_figures, sections, tables, trial_figures
from singer_ray.reporting.page.markup import card, empty
from singer_ray.reporting.page.sheet import Sheet, document, write_page
from singer_ray.reporting.page.style import Figure
from singer_ray.reporting.reading.findings import findings
from singer_ray.reporting.reading.importance import AT_LEAST
from singer_ray.reporting.reading.record import SearchRecord
from singer_ray.reporting.reading.search_reader import read_search
from singer_ray.reporting.text import escape


def build_report(folder: Path, out: Path | None = None) -> Path:
    """Writes the report of the search in FOLDER as one file, FOLDER/report.html or `out`, and returns its path.

    Works at any time: while the search runs, after a failure, and with search.json, best/ or the leaderboard missing.
    Raises UserError when FOLDER is not a search, its study cannot be read, or the target cannot be written.
    """
    target = out if out is not None else folder / REPORT
    search = read_search(folder)
    content = render(search, _config(folder))
    write_page(target, content)
    return target


def render(search: SearchRecord, config: Config | None) -> str:
    """The page as HTML."""
    page = _Page(search)
    limits = sections.findings_list(findings(search, config))
    body = "\n".join(
        [
            sections.headline(search),
            page.section("findings", "What this search can and cannot show", limits, "Limits"),
            page.section("best", "Best configuration", sections.best(search)),
            page.pareto(),
            page.section("leaderboard", "Leaderboard", tables.leaderboard(search)),
            page.progress(),
            page.parameters(),
            page.section("pictures", "Students beside their teacher", sections.pictures(search), "Pictures"),
            page.cost(),
            page.section("setting", "Setting", sections.setting(search)),
        ]
    )
    choice = _objective_choice(search)
    return document(search.name, "search report", page.contents, body, search.folder, choice=choice)


class _Page(Sheet):
    """The sections about a search."""

    def __init__(self, search: SearchRecord) -> None:
        super().__init__()
        self.search = search

    def card(
        self, title: str, text: str, made: Figure | None, otherwise: str = "", objective: int | None = None
    ) -> str:
        """A figure with a title and a sentence, or the sentence that says why there is none."""
        if made is None and not otherwise:
            return ""
        inner = self.plot(made) if made is not None else empty(otherwise)
        return card(escape(title), inner, escape(text) if made is not None else "", attributes=self._only(objective))

    def pareto(self) -> str:
        search = self.search
        if not search.objectives.several:
            return ""
        parts = []
        space = pareto_figures.pareto_space(search)
        if space is not None:
            parts.append(
                self.card(
                    "Three objectives",
                    "Drag to turn. No finished trial is better than one of the front in all three.",
                    space,
                )
            )
        pairs = pareto_figures.pareto_pairs(search)
        drawn = "".join(
            self.card("", "Dotted: what nobody has beaten." if len(pairs) == 1 else "", pair) for pair in pairs
        )
        parts.append(
            f'<div class="{"pair" if len(pairs) > 1 else ""}">{drawn}</div>'
            if drawn
            else '<p class="empty">No trial has finished, so there is no front yet.</p>'
        )
        parts.append(tables.front(search))
        return self.section("front", "Pareto front", "\n".join(parts))

    def progress(self) -> str:
        search = self.search
        drawn = [
            self.card(
                "Values by trial",
                "In the order in which trials began. Click a point to find its row.",
                trial_figures.history(search, n),
                "No trial has reported a value.",
                n,
            )
            for n in self._objectives
        ]
        curves = self.card(
            "Learning curves",
            f"{search.objectives.stop_metric}, by which trials are stopped early, after each epoch.",
            trial_figures.learning_curves(search),
            "No trial has ended its first epoch.",
        )
        return self.section("progress", "Progress", "\n".join([*drawn, curves]))

    def parameters(self) -> str:
        search = self.search
        if not search.distributions:
            return ""
        parts = []
        for n in self._objectives:
            parts.append(
                self.card(
                    "Importance",
                    "How differently the best trials are distributed from all (PED-ANOVA): what decided, not "
                    "in which direction.",
                    parameter_figures.importance_bars(search, n),
                    self._no_importance(),
                    n,
                )
            )
            parts.append(
                self.card(
                    "All parameters together",
                    "One line a finished trial; drag along an axis to choose, click to let go. "
                    + ("At the dash: a parameter that the trial does not have." if _conditional(search) else ""),
                    parameter_figures.parallel_coordinates(search, n),
                    "Fewer than two trials have finished.",
                    n,
                )
            )
            parts.append(self._slices(n))
        parts.append(tables.refiners(search))
        return self.section("parameters", "Parameters", "\n".join(parts))

    def cost(self) -> str:
        search = self.search
        drawn = self.card(
            "Timeline",
            "Each bar is a trial" + ("; shaded: the sessions." if len(search.sessions) > 1 else "."),
            trial_figures.timeline(search),
            "No trial has begun.",
        )
        return self.section("cost", "Cost", sections.budget(search) + drawn + tables.sessions(search))

    def _slices(self, objective: int) -> str:
        made = [parameter_figures.slice_of(self.search, name, objective) for name in self.search.distributions]
        drawn = "".join(f'<div class="slice">{self.plot(each)}</div>' for each in made if each is not None)
        if not drawn:
            return ""
        text = (
            "Grey rings were stopped early, their values are of their last epoch; the star is the best. "
            "Axes span the range searched."
        )
        return card(
            "One parameter at a time", f'<div class="slices">{drawn}</div>', text, attributes=self._only(objective)
        )

    def _no_importance(self) -> str:
        if sum(not d.single() for d in self.search.distributions.values()) < 2:
            return "One parameter alone was searched: there is nothing to compare it with."
        if len(self.search.finished) < AT_LEAST:
            return f"Too few finished trials ({len(self.search.finished)}): importances need {AT_LEAST}."
        return "All finished trials have the same value."

    def _only(self, objective: int | None) -> str:
        """Shown for one of several objectives only."""
        if objective is None or not self.search.objectives.several:
            return ""
        return f' data-objective="{objective}"{" hidden" if objective else ""}'

    @property
    def _objectives(self) -> range:
        return range(len(self.search.objectives.names))


def _conditional(search: SearchRecord) -> bool:
    return any(name not in t.parameters for t in search.finished for name in search.distributions)


def _objective_choice(search: SearchRecord) -> str:
    if not search.objectives.several:
        return ""
    options = "".join(f'<option value="{n}">{escape(name)}</option>' for n, name in enumerate(search.objectives.names))
    return f'<label>Figures for <select id="objective">{options}</select></label>'


def _config(folder: Path) -> Config | None:
    """The configuration of the search; None where it is missing or of another version."""
    path = folder / CONFIG
    try:
        return load_preset(str(path)) if path.is_file() and os.access(path, os.R_OK) else None
    except UserError:
        return None
