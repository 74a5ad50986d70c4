"""The parts of a report that are text, tables and pictures."""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from PIL import Image

from singer_ray.reporting.figures import slice_of
from singer_ray.reporting.findings import REFINER, Finding
from singer_ray.reporting.record import CONFIG, STATES, SearchRecord, Student, TrialRecord
from singer_ray.reporting.style import COLOURS, MISSING, WORDS, Axis
from singer_ray.reporting.text import duration, escape, moment, number, plural, score, spread_of
from singer_ray.search.study import COMPLETE, FAIL, PRUNED

PICTURE_BYTES = 700_000
"""A larger picture is stored again with losses."""
PICTURE_WIDTH = 1500
STUDENTS = 3
"""As many exported students are shown in pictures."""
FAULT_LENGTH = 400


def headline(search: SearchRecord) -> str:
    """What was searched and what came of it, in tiles."""
    best, objectives = search.best, search.objectives
    tiles = []
    for n, name in enumerate(objectives.names):
        leader = search.best_in(n)
        value = leader.values[n] if leader and leader.values else None
        test = search.test_of(leader, name) if leader else None
        below = [f"trial {_link(leader)}"] if leader else ["no trial has finished"]
        if test is not None:
            below.append(f"test <b>{score(test)}</b>")
        if leader is not None and leader is best and leader.spread is not None:
            below.append(f"{score(leader.mean)} ± {spread_of(leader.spread)} over {leader.seeds} seeds")
        tiles.append(_tile(f"best {name}", score(value), ", ".join(below), lead=True))
    if objectives.several:
        tiles.append(_tile("Pareto front", str(len(search.front)), "trials that no other beats in all"))
    counts = [(state, search.count(state)) for state in STATES if search.count(state)]
    words = ", ".join(f"{count} {WORDS[state]}" for state, count in counts)
    tiles.append(_tile("trials", str(len(search.trials)), words or "none began", extra=_bar(counts)))
    tiles.append(_tile("wall time", duration(search.seconds), _begun(search)))
    hours = number(search.gpu_hours) if search.gpu_hours is not None else MISSING
    tiles.append(_tile("GPU-hours", hours, "no GPU was used" if search.gpu_hours == 0 else
                       "" if search.gpu_hours is not None else "not recorded"))  # fmt: skip
    if search.money is not None:
        price = f"at ${number(search.price)} a node and hour" if search.price is not None else ""
        tiles.append(_tile("cost", f"${search.money:,.2f}", price))
    wanted = ", ".join(f"<b>{escape(n)}</b> ({m})" for n, m in zip(objectives.names, objectives.modes))
    lines = [f"Optimised {wanted}" + (f"; stopped early by {escape(objectives.stop_metric)}." if
             objectives.several or objectives.stop_metric != objectives.first else ".")]  # fmt: skip
    lines += [
        f"{plural(count, 'earlier trial')} of {escape(address)} gave the sampler a start; no count or figure here has them."
        for address, count in search.imported.items()
    ]
    if len(search.sessions) > 1:
        lines.append(f"{len(search.sessions)} sessions:")
    sessions = (
        "".join(f"<li>{_session_line(search, n)}</li>" for n in range(len(search.sessions)))
        if len(search.sessions) > 1
        else ""
    )
    told = "".join(f"<p>{line}</p>" for line in lines) + (f"<ol>{sessions}</ol>" if sessions else "")
    return f'<header><p class="kind">Search report</p><h1>{escape(search.name)}</h1>{told}<div class="tiles">{"".join(tiles)}</div></header>'


def findings_list(found: Sequence[Finding]) -> str:
    marks = {"caution": "!", "good": "✓", "note": "i"}
    items = "".join(
        f'<li class="{f.kind}"><span class="mark">{marks[f.kind]}</span><div><h3>{escape(f.title)}</h3><p>{escape(f.text)}</p></div></li>'
        for f in found
    )
    return f'<ul class="findings">{items}</ul>' if items else ""


def best(search: SearchRecord) -> str:
    """Parameters of the leading trial within their ranges, its scores, and how to use it."""
    trial = search.best
    if trial is None:
        return '<p class="empty">No trial has finished.</p>'
    student = next((s for s in search.students if s.trial_id == trial.id), None)
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td class=n>{escape(number(value))}</td>"
        f"<td>{_position(search.distributions[name], value, name)}</td></tr>"
        for name, value in trial.parameters.items()
    )
    table = (
        f'<div class="card"><h3>Trial {_link(trial)}</h3>'
        + (
            "<p>The first by rank; the table of the front below has the others.</p>"
            if search.objectives.several
            else ""
        )
        + f'<div class="scroll"><table class="plain"><thead><tr><th>parameter</th><th class=n>value</th><th>in the range searched</th></tr></thead><tbody>{rows}</tbody></table></div></div>'
    )
    return f'<div class="pair">{table}{_scores(search, trial, student)}</div>{_commands(search, trial, student)}'


def leaderboard(search: SearchRecord) -> str:
    """All trials, sortable."""
    if not search.trials:
        return '<p class="empty">No trial has begun.</p>'
    states = "".join(
        f'<label class="chip"><input type="checkbox" value="{state}" checked><span class="dot" style="background:{COLOURS[state]}"></span>'
        f"{WORDS[state]} {search.count(state)}</label>"
        for state in STATES if search.count(state)
    )  # fmt: skip
    tools = f'<div class="tools" data-table="trials">{states}<input type="search" placeholder="filter, e.g. singer" aria-label="filter rows"></div>'
    return tools + _trial_table(search, search.trials, "trials")


def front_table(search: SearchRecord) -> str:
    return f"<h3>Trials of the front</h3>{_trial_table(search, search.front, 'front-trials')}" if search.front else ""


def refiners(search: SearchRecord) -> str:
    """Best, mean and spread for each refiner, where refiners were searched."""
    distribution = search.distributions.get(REFINER)
    if not isinstance(distribution, CategoricalDistribution) or len(distribution.choices) < 2:
        return ""
    names = search.objectives.names
    head = "".join(f"<th class=n>{h}</th>" for name in names for h in (f"best {escape(name)}", "mean", "spread"))
    groups = []
    for choice in distribution.choices:
        own = [t for t in search.trials if t.parameters.get(REFINER) == choice]
        finished = [t for t in own if t in search.finished]
        cells = "".join(
            _summary([t.values[n] for t in finished if t.values], search.objectives.modes[n]) for n in range(len(names))
        )
        lead = f"trial {_link(finished[0])}" if finished else MISSING
        counts = "".join(f"<td class=n>{sum(t.state == s for t in own)}</td>" for s in (COMPLETE, PRUNED, FAIL))
        groups.append((finished[0].rank if finished else len(search.trials) + 1,
                       f"<tr><td>{escape(choice)}</td>{cells}<td>{lead}</td>{counts}</tr>"))  # fmt: skip
    rows = "".join(row for _, row in sorted(groups, key=lambda each: each[0]))
    return (
        '<div class="card" id="refiners"><h3>Refiners compared</h3><p>Finished trials; the spread is a standard deviation over '
        "trials with other parameters, not over seeds.</p>"
        f'<div class="scroll"><table class="sortable"><thead><tr><th>refiner</th>{head}<th>best trial</th><th class=n>finished</th>'
        f"<th class=n>stopped</th><th class=n>failed</th></tr></thead><tbody>{rows}</tbody></table></div></div>"
    )


def pictures(search: SearchRecord) -> str:
    """The exported students' pictures, inside the page."""
    parts = []
    for student in search.students[:STUDENTS]:
        drawn = "".join(
            f'<figure><img alt="{escape(path.stem)} of trial {escape(student.trial_id)}" src="{_picture(path)}"><figcaption>{_CAPTIONS.get(path.stem, escape(path.stem))}</figcaption></figure>'
            for path in student.pictures
        )
        if drawn:
            parts.append(
                f'<div class="card"><h3>Rank {student.rank}, trial {escape(student.trial_id)}</h3><div class="pictures">{drawn}</div></div>'
            )
    return "".join(parts)


def budget(search: SearchRecord) -> str:
    """Where the trials' time went, and what early stopping saved."""
    spent = [(s, sum(t.seconds for t in search.trials if t.state == s)) for s in STATES]
    spent = [(state, seconds) for state, seconds in spent if seconds > 0]
    if not spent:
        return ""
    total = sum(seconds for _, seconds in spent)
    words = "".join(
        f'<li><span class="dot" style="background:{COLOURS[state]}"></span>{WORDS[state]}: <b>{duration(seconds)}</b> '
        f"({seconds / total:.0%}) for {plural(search.count(state), 'trial')}</li>"
        for state, seconds in spent
    )
    stopped = [t for t in search.trials if t.state == PRUNED and t.epochs and search.epochs]
    saved = sum(t.seconds / t.epochs * max(0, (search.epochs or 0) - t.epochs) for t in stopped)
    told = (
        f"<p>At their own pace the stopped trials would have taken another {duration(saved)}: early stopping saved "
        f"{saved / (saved + total):.0%} of the time that all of them need.</p>" if saved else ""
    )  # fmt: skip
    return f'<div class="card"><h3>Time of all trials: {duration(total)}</h3>{_bar(spent)}<ul class="legend">{words}</ul>{told}</div>'


def sessions(search: SearchRecord) -> str:
    if not search.sessions:
        return ""
    rows = "".join(
        f"<tr><td>{n}</td><td>{moment(s.begin)}</td><td>{moment(s.end)}</td><td class=n>{duration(s.end - s.begin if s.end else None)}</td>"
        f"<td class=n>{number(s.nodes)}</td><td class=n>{number(s.concurrent)}</td><td class=n>{number(s.gpus)}</td></tr>"
        for n, s in enumerate(search.sessions, start=1)
    )
    money = f", ${search.money:,.2f}" if search.money is not None else ", money unknown: no price a node and hour"
    hours = f", {number(search.gpu_hours)} GPU-hours" if search.gpu_hours is not None else ""
    return (
        f'<div class="card"><h3>Sessions</h3><p>Together {duration(search.seconds)}{hours}{money}.</p><div class="scroll"><table class="plain"><thead><tr><th>#</th>'
        "<th>begin</th><th>end</th><th class=n>length</th><th class=n>nodes</th><th class=n>at a time</th><th class=n>GPUs</th></tr>"
        f"</thead><tbody>{rows}</tbody></table></div></div>"
    )


def setting(search: SearchRecord) -> str:
    """The search space and the configuration, to read and copy."""
    parts = [
        f"<details><summary>{title}</summary><pre>{escape(text)}</pre></details>"
        for title, text in (("Search space (space.yaml)", search.space), ("Configuration (config.yaml)", search.config)) if text
    ]  # fmt: skip
    return "".join(parts)


_CAPTIONS = {
    "norm_maps": "Norm of each patch token over the median of its image, at the last distilled layer: the teacher, what the "
    "student was shown, the student.",
    "pca": "The same tokens as colours: the first three principal components of the teacher's normal tokens, the student's "
    "features in the teacher's space. Equal colours mean equal features.",
}


def _tile(label: str, value: str, below: str, *, lead: bool = False, extra: str = "") -> str:
    return f'<div class="tile{" lead" if lead else ""}"><span>{escape(label)}</span><strong>{escape(value)}</strong>{extra}<small>{below}</small></div>'


def _bar(parts: Iterable[tuple[str, float]]) -> str:
    inner = "".join(
        f'<i style="flex:{size:.4g};background:{COLOURS[state]}" title="{WORDS[state]}"></i>' for state, size in parts
    )
    return f'<div class="bar">{inner}</div>'


def _begun(search: SearchRecord) -> str:
    begins = [t.begin for t in search.trials if t.begin]
    if search.sessions:
        return f"since {moment(search.sessions[0].begin)}"
    return f"since {moment(min(begins))}" if begins else ""


def _session_line(search: SearchRecord, place: int) -> str:
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


def _link(trial: TrialRecord) -> str:
    return f'<a class="trial" href="#trial-{trial.id}">{trial.id}</a>'


def _position(distribution: BaseDistribution, value: Any, name: str) -> str:
    """Where a value lies in its range, as a mark on a line; a choice among the others."""
    if isinstance(distribution, CategoricalDistribution):
        return " ".join(
            f'<span class="choice{" chosen" if c == value else ""}">{escape(c)}</span>' for c in distribution.choices
        )
    axis = Axis(name, distribution)
    share = min(1.0, max(0.0, axis.share(value)))
    scale = " (log)" if axis.log else ""
    return (
        f'<span class="range"><small>{number(distribution.low)}</small><span class="line" title="{share:.0%} of the range{scale}">'  # type: ignore[attr-defined]
        f'<i style="left:{100 * share:.1f}%"></i></span><small>{number(distribution.high)}{scale}</small></span>'  # type: ignore[attr-defined]
    )


def _scores(search: SearchRecord, trial: TrialRecord, student: Student | None) -> str:
    """Validation and test beside one another; other networks' figures are in result.json."""
    metrics = {**trial.metrics, **(student.metrics if student else {})}
    names = sorted(
        {n.partition("/")[2] for n in metrics if n.startswith(("val/", "test/")) and "/after_norm/" not in n}
    )
    rows = "".join(
        f"<tr><td>{escape(n)}</td><td class=n>{score(metrics.get(f'val/{n}'))}</td><td class=n>{score(metrics.get(f'test/{n}'))}</td></tr>"
        for n in names
    )
    others = "".join(
        f"<tr><td>{escape(n)}</td><td class=n colspan=2>{number(v)}</td></tr>"
        for n, v in zip(search.objectives.names, trial.values or ()) if not n.startswith("val/")
    )  # fmt: skip
    if not rows and not others:
        return ""
    return (
        '<div class="card"><h3>Its scores</h3><div class="scroll"><table class="plain"><thead><tr><th>metric</th><th class=n>validation</th><th class=n>test</th></tr></thead>'
        f"<tbody>{rows}{others}</tbody></table></div></div>"
    )


def _commands(search: SearchRecord, trial: TrialRecord, student: Student | None) -> str:
    if student is not None:
        preset, options = student.folder / CONFIG, []
        load = f"<p>Use the student:</p><pre>import timm\nstudent = timm.create_model({escape(repr(f'local-dir:{student.folder}'))}, pretrained=True)</pre>"
    else:
        preset = search.folder / CONFIG
        options = [part for name, value in trial.parameters.items() for part in (f"--{name}", _exact(value))]
        load = "<p>This trial's student was not exported (best/ does not have it).</p>"
    again = shlex.join(["python", "-m", "singer_ray.train", "--preset", str(preset), *options, "--out", "runs/again"])
    return f'<div class="card"><h3>Use it</h3><p>Train it again, with another seed by <code>--seed N</code>:</p><pre>{escape(again)}</pre>{load}</div>'


def _exact(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _trial_table(search: SearchRecord, trials: Sequence[TrialRecord], name: str) -> str:
    objectives = search.objectives.names
    tests = [o for o in objectives if any(search.test_of(t, o) is not None for t in trials)]
    shown = [p for p in search.distributions if any(p in t.parameters for t in trials)]
    repeated = any(t.seeds for t in trials)
    marked = search.objectives.several and name == "trials"
    faults = any(t.fault for t in trials)
    head = [
        _head("#", number_=True), _head("trial"), _head("state"),
        *(_head(o, number_=True) for o in objectives), *(_head(o.replace("val/", "test/", 1), number_=True) for o in tests),
        *([_head("front")] if marked else []),
        *([_head("seeds", number_=True), _head("mean", number_=True), _head("spread", number_=True)] if repeated else []),
        *(_head(search.labels[p], title=p, number_=not isinstance(search.distributions[p], CategoricalDistribution)) for p in shown),
        _head("epochs", number_=True), _head("time", number_=True), *([_head("fault")] if faults else []),
    ]  # fmt: skip
    rows = []
    for trial in trials:
        values = trial.values or (None,) * len(objectives)
        anchor = f' id="trial-{trial.id}"' if name == "trials" else ""
        cells = [
            _cell(trial.rank), f"<td>{trial.id}</td>",
            f'<td><span class="state" style="--state:{COLOURS[trial.state]}">{WORDS[trial.state]}</span></td>',
            *map(_score, values), *(_score(search.test_of(trial, o)) for o in tests),
            *([f"<td>{'◆' if trial.front else ''}</td>"] if marked else []),
            *([_cell(trial.seeds), _score(trial.mean), _cell(trial.spread, spread_of(trial.spread))] if repeated else []),
            *(_cell(trial.parameters.get(p)) for p in shown),
            _cell(trial.epochs), f'<td class=n data-v="{trial.seconds:.6g}">{duration(trial.seconds)}</td>',
            *([_fault(trial)] if faults else []),
        ]  # fmt: skip
        rows.append(f'<tr{anchor} data-state="{trial.state}">{"".join(cells)}</tr>')
    return (
        f'<div class="scroll tall"><table class="sortable" id="{name}"><thead><tr>{"".join(head)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _head(text: str, *, title: str = "", number_: bool = False) -> str:
    kind, told = " class=n" if number_ else "", f' title="{escape(title)}"' if title else ""
    return f'<th{kind}{told} tabindex="0">{escape(text)}</th>'


def _cell(value: Any, text: str | None = None) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"<td>{'' if value is None else escape(value)}</td>"
    return f'<td class=n data-v="{value:.9g}">{number(value) if text is None else text}</td>'


def _score(value: float | None) -> str:
    return _cell(value, score(value))


def _fault(trial: TrialRecord) -> str:
    text = trial.fault or ""
    return f'<td class="fault">{escape(text[:FAULT_LENGTH] + ("…" if len(text) > FAULT_LENGTH else ""))}</td>'


def _summary(values: Sequence[float], mode: str) -> str:
    lead = (max(values) if mode == "max" else min(values)) if values else None
    middle, spread = mean(values) if values else None, stdev(values) if len(values) > 1 else None
    return _score(lead) + _score(middle) + _cell(spread, spread_of(spread))


def _picture(path: Path) -> str:
    """A picture as an address that holds it; a large one again, smaller."""
    content, kind = path.read_bytes(), "png"
    if len(content) > PICTURE_BYTES:
        with Image.open(path) as opened:
            drawn = opened.convert("RGB")
        drawn.thumbnail((PICTURE_WIDTH, 4 * PICTURE_WIDTH))
        held = io.BytesIO()
        drawn.save(held, "WEBP", quality=85)
        content, kind = held.getvalue(), "webp"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
