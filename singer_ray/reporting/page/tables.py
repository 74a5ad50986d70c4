"""The tables of a report: all trials, the front, refiners, sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean, stdev

from optuna.distributions import CategoricalDistribution

from singer_ray.reporting.page.markup import (
    card,
    cell,
    dot,
    duration_cell,
    empty,
    head,
    link,
    right,
    row,
    score_cell,
    table,
)
from singer_ray.reporting.page.style import COLOURS, WORDS
from singer_ray.reporting.reading.findings import REFINER
from singer_ray.reporting.reading.record import STATES, SearchRecord, TrialRecord
from singer_ray.reporting.text import MISSING, duration, escape, moment, number, spread_of
from singer_ray.search.study.schema import COMPLETE, FAIL, PRUNED

LONGEST_ERROR = 400

Column = tuple[str, Callable[[TrialRecord], str]]
"""The head of a column, and its cell for a trial."""


def leaderboard(search: SearchRecord) -> str:
    """All trials, to sort and to filter."""
    if not search.trials:
        return empty("No trial has begun.")
    states = "".join(
        f'<label class="chip"><input type="checkbox" value="{state}" checked>{dot(state)}{WORDS[state]} '
        f"{search.count(state)}</label>"
        for state in STATES
        if search.count(state)
    )
    words = '<input type="search" placeholder="filter, e.g. singer" aria-label="filter rows">'
    return f'<div class="tools" data-table="trials">{states}{words}</div>{_trials(search, search.trials, "trials")}'


def front(search: SearchRecord) -> str:
    """The trials of the Pareto front."""
    return f"<h3>Trials of the front</h3>{_trials(search, search.front, 'front-trials')}" if search.front else ""


def refiners(search: SearchRecord) -> str:
    """Best, mean and spread for each refiner, where refiners were searched."""
    distribution = search.distributions.get(REFINER)
    if not isinstance(distribution, CategoricalDistribution) or len(distribution.choices) < 2:
        return ""
    names, modes = search.objectives.names, search.objectives.modes
    measures = [head(h, right=True) for name in names for h in (f"best {name}", "mean", "spread")]
    counts = [head(WORDS[state], right=True) for state in (COMPLETE, PRUNED, FAIL)]
    groups = []
    for choice in distribution.choices:
        own = [t for t in search.trials if t.parameters.get(REFINER) == choice]
        finished = [t for t in own if t.values and t.state == COMPLETE]
        cells = [
            cell(str(choice)),
            *(_measures([t.values[n] for t in finished if t.values], mode) for n, mode in enumerate(modes)),
            f"<td>{f'trial {link(finished[0])}' if finished else MISSING}</td>",
            *(cell(sum(t.state == state for t in own)) for state in (COMPLETE, PRUNED, FAIL)),
        ]
        groups.append((finished[0].rank if finished else len(search.trials) + 1, row(cells)))
    rows = [drawn for _, drawn in sorted(groups, key=lambda each: each[0])]
    return card(
        "Refiners compared",
        table([head("refiner"), *measures, head("best trial"), *counts], rows, kind="sortable"),
        "Finished trials; the spread is a standard deviation over trials with other parameters, not over seeds.",
    )


def sessions(search: SearchRecord) -> str:
    """When the search ran, on what, and what it cost."""
    if not search.sessions:
        return ""
    rows = [
        row(
            [
                cell(n),
                cell(moment(s.begin)),
                cell(moment(s.end)),
                right(duration(s.end - s.begin if s.end else None)),
                right(number(s.nodes)),
                right(number(s.concurrent)),
                right(number(s.gpus)),
            ]
        )
        for n, s in enumerate(search.sessions, start=1)
    ]
    hours = f", {number(search.gpu_hours)} GPU-hours" if search.gpu_hours is not None else ""
    money = f"${search.money:,.2f}" if search.money is not None else "money unknown, as no price of a node was given"
    columns = [head("#", right=True), head("begin"), head("end")]
    columns += [head(name, right=True) for name in ("length", "nodes", "at a time", "GPUs")]
    return card("Sessions", table(columns, rows), f"Together {duration(search.seconds)}{hours}, {money}.")


def _trials(search: SearchRecord, trials: Sequence[TrialRecord], name: str) -> str:
    columns = _columns(search, trials, whole=name == "trials")

    def drawn(trial: TrialRecord) -> str:
        anchor = f' id="trial-{trial.id}"' if name == "trials" else ""
        return row((content(trial) for _, content in columns), f'{anchor} data-state="{trial.state}"')

    return table([h for h, _ in columns], map(drawn, trials), kind="sortable", tall=True, name=name)


def _columns(search: SearchRecord, trials: Sequence[TrialRecord], *, whole: bool) -> list[Column]:
    """What these trials have; whether one is of the front, only in the table of all."""
    columns: list[Column] = [
        (head("#", right=True), lambda t: cell(t.rank)),
        (head("trial"), lambda t: f"<td>{t.id}</td>"),
        (head("state"), _state),
    ]
    for n, name in enumerate(search.objectives.names):
        columns.append((head(name, right=True), lambda t, n=n: score_cell(t.values[n] if t.values else None)))  # type: ignore[misc]
    for name in search.objectives.names:
        if any(search.test_of(t, name) is not None for t in trials):
            test = name.replace("val/", "test/", 1)
            columns.append((head(test, right=True), lambda t, name=name: score_cell(search.test_of(t, name))))  # type: ignore[misc]
    if search.objectives.several and whole:
        columns.append((head("front"), lambda t: f"<td>{'◆' if t.front else ''}</td>"))
    if any(t.seeds for t in trials):
        columns += [
            (head("seeds", right=True), lambda t: cell(t.seeds)),
            (head("mean", right=True), lambda t: score_cell(t.mean)),
            (head("spread", right=True), lambda t: cell(t.spread, spread_of(t.spread))),
        ]
    for name, distribution in search.distributions.items():
        if any(name in t.parameters for t in trials):
            numeric = not isinstance(distribution, CategoricalDistribution)
            titled = head(search.labels[name], title=name, right=numeric)
            columns.append((titled, lambda t, name=name: cell(t.parameters.get(name))))  # type: ignore[misc]
    columns += [
        (head("epochs", right=True), lambda t: cell(t.epochs)),
        (head("time", right=True), lambda t: duration_cell(t.seconds)),
    ]
    if any(t.fault for t in trials):
        columns.append((head("fault"), _error))
    return columns


def _state(trial: TrialRecord) -> str:
    return f'<td><span class="state" style="--state:{COLOURS[trial.state]}">{WORDS[trial.state]}</span></td>'


def _error(trial: TrialRecord) -> str:
    text = trial.fault or ""
    return f'<td class="fault">{escape(text[:LONGEST_ERROR] + ("…" if len(text) > LONGEST_ERROR else ""))}</td>'


def _measures(values: Sequence[float], mode: str) -> str:
    best = (max(values) if mode == "max" else min(values)) if values else None
    spread = stdev(values) if len(values) > 1 else None
    return score_cell(best) + score_cell(mean(values) if values else None) + cell(spread, spread_of(spread))
