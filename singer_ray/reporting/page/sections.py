"""The parts of a report that are text and pictures."""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from PIL import Image

from singer_ray.layout import CONFIG
from singer_ray.reporting.page.markup import bar, card, cell, dot, empty, head, link, right, row, table, tile
from singer_ray.reporting.page.style import WORDS
from singer_ray.reporting.reading.axis import Axis
from singer_ray.reporting.reading.findings import Finding
from singer_ray.reporting.reading.record import STATES, SearchRecord, Student, TrialRecord
from singer_ray.reporting.text import MISSING, duration, escape, moment, number, plural, score, spread_of
from singer_ray.search.study.schema import PRUNED

PICTURE_BYTES = 700_000
"""A larger picture is stored again with lossy compression."""
PICTURE_WIDTH = 1500
STUDENTS = 3
"""How many exported students are shown in pictures."""
_MARKS = {"caution": "!", "good": "✓", "note": "i"}
CAPTIONS = {
    "norm_maps": "Norm of each patch token over the median of its image, at the last distilled layer: the teacher, "
    "what the student was shown, the student.",
    "pca": "The same tokens as colours: the first three principal components of the teacher's normal tokens, the "
    "student's features in the teacher's space. Equal colours mean equal features.",
}


def headline(search: SearchRecord) -> str:
    """What was searched and what came of it, in tiles."""
    objectives = search.objectives
    wanted = ", ".join(f"<b>{escape(n)}</b> ({m})" for n, m in zip(objectives.names, objectives.modes))
    apart = objectives.several or objectives.stop_metric != objectives.first
    lines = [f"Optimised {wanted}{f'; stopped early by {escape(objectives.stop_metric)}' if apart else ''}."]
    lines += [
        f"{plural(count, 'earlier trial')} of {escape(address)} gave the sampler a start; no figure here counts them."
        for address, count in search.imported.items()
    ]
    sessions = ""
    if len(search.sessions) > 1:
        lines.append(f"{len(search.sessions)} sessions:")
        sessions = f"<ol>{''.join(f'<li>{_session(search, n)}</li>' for n in range(len(search.sessions)))}</ol>"
    told = "".join(f"<p>{line}</p>" for line in lines) + sessions
    tiles = "".join([*_best_tiles(search), *_cost_tiles(search)])
    title = f'<p class="kind">Search report</p><h1>{escape(search.name)}</h1>'
    return f'<header>{title}{told}<div class="tiles">{tiles}</div></header>'


def findings_list(findings: Sequence[Finding]) -> str:
    items = "".join(
        f'<li class="{f.kind}"><span class="mark">{_MARKS[f.kind]}</span>'
        f"<div><h3>{escape(f.title)}</h3><p>{escape(f.text)}</p></div></li>"
        for f in findings
    )
    return f'<ul class="findings">{items}</ul>' if items else ""


def best(search: SearchRecord) -> str:
    """Parameters of the leading trial within their ranges, its scores, and how to use it."""
    trial = search.best
    if trial is None:
        return empty("No trial has finished.")
    student = next((s for s in search.students if s.trial_id == trial.id), None)
    rows = [
        row(
            [
                f"<td><code>{escape(name)}</code></td>",
                right(escape(number(value))),
                f"<td>{_position(search.distributions[name], value, name)}</td>",
            ]
        )
        for name, value in trial.parameters.items()
    ]
    columns = [head("parameter"), head("value", right=True), head("in the range searched")]
    parameters = card(
        f"Trial {link(trial)}",
        table(columns, rows),
        "The first by rank; the table of the front below has the others." if search.objectives.several else "",
    )
    return f'<div class="pair">{parameters}{_scores(search, trial, student)}</div>{_use(search, trial, student)}'


def pictures(search: SearchRecord) -> str:
    """The exported students' pictures, inside the page."""
    parts = []
    for student in search.students[:STUDENTS]:
        drawn = "".join(
            f'<figure><img alt="{escape(path.stem)} of trial {escape(student.trial_id)}" src="{picture_address(path)}">'
            f"<figcaption>{CAPTIONS.get(path.stem, escape(path.stem))}</figcaption></figure>"
            for path in student.pictures
        )
        if drawn:
            title = f"Rank {student.rank}, trial {escape(student.trial_id)}"
            parts.append(card(title, f'<div class="pictures">{drawn}</div>'))
    return "".join(parts)


def budget(search: SearchRecord) -> str:
    """Where the trials' time went, and what early stopping saved."""
    spent = [(state, sum(t.seconds for t in search.trials if t.state == state)) for state in STATES]
    spent = [(state, seconds) for state, seconds in spent if seconds > 0]
    if not spent:
        return ""
    total = sum(seconds for _, seconds in spent)
    words = "".join(
        f"<li>{dot(state)}{WORDS[state]}: <b>{duration(seconds)}</b> ({seconds / total:.0%}) for "
        f"{plural(search.count(state), 'trial')}</li>"
        for state, seconds in spent
    )
    stopped = [t for t in search.trials if t.state == PRUNED and t.epochs and search.epochs]
    saved = sum(t.seconds / t.epochs * max(0, (search.epochs or 0) - t.epochs) for t in stopped)
    told = ""
    if saved:
        told = (
            f"<p>At their own pace the stopped trials would have taken another {duration(saved)}: early stopping saved "
            f"{saved / (saved + total):.0%} of the time that all of them need.</p>"
        )
    return card(f"Time of all trials: {duration(total)}", f'{bar(spent)}<ul class="legend">{words}</ul>{told}')


def setting(search: SearchRecord) -> str:
    """The search space and the configuration, to read and copy."""
    files = (("Search space (space.yaml)", search.space), ("Configuration (config.yaml)", search.config))
    return "".join(
        f"<details><summary>{title}</summary><pre>{escape(text)}</pre></details>" for title, text in files if text
    )


def _best_tiles(search: SearchRecord) -> list[str]:
    tiles = []
    for n, name in enumerate(search.objectives.names):
        leader = search.best_in(n)
        if leader is None or leader.values is None:
            tiles.append(tile(f"best {name}", MISSING, "no trial has finished", lead=True))
            continue
        below, test = [f"trial {link(leader)}"], search.test_of(leader, name)
        if test is not None:
            below.append(f"test <b>{score(test)}</b>")
        if n == 0 and leader.spread is not None:
            below.append(f"{score(leader.mean)} ± {spread_of(leader.spread)} over {leader.seeds} seeds")
        tiles.append(tile(f"best {name}", score(leader.values[n]), ", ".join(below), lead=True))
    if search.objectives.several:
        tiles.append(tile("Pareto front", str(len(search.front)), "trials that no other beats in all"))
    return tiles


def _cost_tiles(search: SearchRecord) -> list[str]:
    counts = [(state, search.count(state)) for state in STATES if search.count(state)]
    words = ", ".join(f"{count} {WORDS[state]}" for state, count in counts)
    hours, none = search.gpu_hours, {None: "not recorded", 0.0: "no GPU was used"}
    begun = [search.sessions[0].begin] if search.sessions else sorted(t.begin for t in search.trials if t.begin)
    tiles = [
        tile("trials", str(len(search.trials)), words or "none began", extra=bar(counts)),
        tile("wall time", duration(search.seconds), f"since {moment(begun[0])}" if begun else ""),
        tile("GPU-hours", number(hours), none.get(hours, "")),
    ]
    if search.money is not None:
        price = f"at ${number(search.price)} a node and hour" if search.price is not None else ""
        tiles.append(tile("cost", f"${search.money:,.2f}", price))
    return tiles


def _session(search: SearchRecord, place: int) -> str:
    session = search.sessions[place]
    parts = [f"{moment(session.begin)} to {moment(session.end)}"]
    if session.end:
        parts.append(duration(session.end - session.begin))
    if session.nodes:
        parts.append(plural(session.nodes, "node"))
    if session.gpus:
        parts.append(f"{number(session.gpus)} GPUs")
    if session.concurrent:
        parts.append(f"{plural(session.concurrent, 'trial')} at a time")
    return ", ".join(parts)


def _position(distribution: BaseDistribution, value: Any, name: str) -> str:
    """Where a value lies in its range, as a mark on a line; a choice among the others."""
    if isinstance(distribution, CategoricalDistribution):
        return " ".join(
            f'<span class="choice{" chosen" if choice == value else ""}">{escape(choice)}</span>'
            for choice in distribution.choices
        )
    axis = Axis(name, distribution)
    share = min(1.0, max(0.0, axis.share(value)))
    scale = " (log)" if axis.log else ""
    line = f'<span class="line" title="{share:.0%} of the range{scale}"><i style="left:{100 * share:.1f}%"></i></span>'
    return f'<span class="range"><small>{axis.low:g}</small>{line}<small>{axis.high:g}{scale}</small></span>'


def _scores(search: SearchRecord, trial: TrialRecord, student: Student | None) -> str:
    """Validation and test beside one another; other networks' figures are in result.json."""
    metrics = {**trial.metrics, **(student.metrics if student else {})}
    splits = ("val/", "test/")
    names = sorted({n.partition("/")[2] for n in metrics if n.startswith(splits) and "/after_norm/" not in n})
    rows = [row([cell(n), *(right(score(metrics.get(split + n))) for split in splits)]) for n in names]
    rows += [
        row([cell(n), f"<td class=n colspan=2>{score(value)}</td>"])
        for n, value in zip(search.objectives.names, trial.values or ())
        if not n.startswith("val/")
    ]
    columns = [head("metric"), head("validation", right=True), head("test", right=True)]
    return card("Its scores", table(columns, rows)) if rows else ""


def _use(search: SearchRecord, trial: TrialRecord, student: Student | None) -> str:
    options: list[str] = []
    if student is not None:
        preset, address = student.folder / CONFIG, repr(f"local-dir:{student.folder}")
        load = escape(f"import timm\nstudent = timm.create_model({address}, pretrained=True)")
        load = f"<p>Use the student:</p><pre>{load}</pre>"
    else:
        preset = search.folder / CONFIG
        options = [part for name, value in trial.parameters.items() for part in (f"--{name}", str(value))]
        load = "<p>This trial's student was not exported (best/ does not have it).</p>"
    again = shlex.join(["python", "-m", "singer_ray.train", "--preset", str(preset), *options, "--out", "runs/again"])
    told = "Train it again, with another seed by <code>--seed N</code>:"
    return card("Use it", f"<pre>{escape(again)}</pre>{load}", told)


def picture_address(path: Path) -> str:
    """A picture as a data URL; a large one scaled down."""
    content, kind = path.read_bytes(), "png"
    if len(content) > PICTURE_BYTES:
        with Image.open(path) as opened:
            drawn = opened.convert("RGB")
        drawn.thumbnail((PICTURE_WIDTH, 4 * PICTURE_WIDTH))
        held = io.BytesIO()
        drawn.save(held, "WEBP", quality=85)
        content, kind = held.getvalue(), "webp"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
