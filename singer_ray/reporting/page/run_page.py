"""One training run as a page that opens offline, anywhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from plotly import graph_objects

from singer_ray.layout import CONFIG, REPORT
from singer_ray.metrics import best_first
from singer_ray.reporting.page.markup import card, cell, empty, head, right, row, table, tile
from singer_ray.reporting.page.sections import CAPTIONS, picture_address
from singer_ray.reporting.page.sheet import Sheet, document, write_page
from singer_ray.reporting.page.style import Figure, figure, rounded, thinned
from singer_ray.reporting.reading.run_result import RunResult, read_run
from singer_ray.reporting.text import MISSING, duration, escape, number, plural, score
from singer_ray.tracking.curves import COLOURS, Panel, panels

_LAYER = re.compile(r"(teacher|refined|student)/max_median_norm/(\d+)")


def build_run_report(folder: Path, out: Path | None = None) -> Path:
    """Writes the report of the run in FOLDER as one file, FOLDER/report.html or `out`, and returns its path.

    Works while the run goes on, too. Raises UserError when FOLDER is not a run, or the target cannot be written.
    """
    target = out if out is not None else folder / REPORT
    write_page(target, render_run(read_run(folder)))
    return target


def render_run(run: RunResult) -> str:
    """The page as HTML."""
    sheet = Sheet()
    remarks = "".join(f"<p>{escape(line)}</p>" for line in run.remarks)
    body = "\n".join(
        [
            _headline(run),
            sheet.section("remarks", "Remarks", card("", remarks) if remarks else ""),
            sheet.section("curves", "Curves", _curves(sheet, run)),
            sheet.section("scores", "Scores", _scores(run.metrics)),
            sheet.section("artifacts", "Artifacts", _artifacts(run.metrics)),
            sheet.section("pictures", "The student beside its teacher", _pictures(run), "Pictures"),
            sheet.section("use", "Use it", _use(run)),
            sheet.section("setting", "Setting", _setting(run)),
        ]
    )
    return document(run.name, "training report", sheet.contents, body, run.folder)


def _headline(run: RunResult) -> str:
    """What was distilled into what, and what came of it, in tiles."""
    config, metrics = run.config, run.metrics
    told = ""
    if config is not None:
        wrapper = config.method.wrapper
        through = "" if wrapper == "none" else f"the teacher read through {escape(wrapper)}, "
        told = (
            f"<p>Distilled <b>{escape(config.teacher.name)}</b> into <b>{escape(config.student.name)}</b>, {through}"
            f"refiner {escape(config.method.refiner)}, seed {config.seed}.</p>"
        )
    tiles = []
    for name in (f"val/{probed}" for probed in best_first()):
        if name in metrics:
            test = metrics.get(name.replace("val/", "test/", 1))
            below = f"test <b>{score(test)}</b>" if test is not None else ""
            tiles.append(tile(name, score(metrics[name]), below, lead=True))
    epochs = (
        f"{run.epochs} of {config.train.epochs}" if config is not None and run.epochs else str(run.epochs or MISSING)
    )
    tiles.append(tile("epochs", epochs, "" if run.finished else "not finished"))
    tiles.append(tile("training time", duration(run.seconds), f"{number(run.images_per_second)} images/s"))
    if "student/parameters" in metrics:
        tiles.append(tile("student", f"{int(metrics['student/parameters']):,}", "parameters"))
    title = f'<p class="kind">Training report</p><h1>{escape(run.name)}</h1>'
    return f'<header>{title}{told}<div class="tiles">{"".join(tiles)}</div></header>'


def _curves(sheet: Sheet, run: RunResult) -> str:
    if not run.rows:
        return empty("This run kept no history: it was trained before there was one.")
    drawn = "".join(card(escape(panel.title), sheet.plot(_figure(panel))) for panel in panels(run.rows))
    return f'<div class="pair">{drawn}</div>'


def _figure(panel: Panel) -> Figure:
    traces = []
    for (name, curve), colour in zip(panel.curves.items(), COLOURS * len(panel.curves)):
        points = thinned(curve)
        traces.append(
            graph_objects.Scatter(
                x=[epoch for epoch, _ in points],
                y=rounded([value for _, value in points]),
                name=name,
                mode="lines+markers" if len(points) < 40 else "lines",
                line={"color": colour, "width": 2},
                marker={"size": 4},
                hovertemplate=f"{name}<br>epoch %{{x}}: %{{y}}<extra></extra>",
            )
        )
    whole = max((len(curve) for curve in panel.curves.values()), default=0) < 12
    return figure(
        traces,
        height=320,
        xaxis={"title": {"text": "epoch"}, **({"dtick": 1} if whole else {})},
        yaxis={"type": "log" if panel.log else "linear"},
    )


def _scores(metrics: Mapping[str, float]) -> str:
    """Validation beside test, before and after the final norm."""
    splits = ("val/", "test/")
    names = sorted({name.partition("/")[2].removeprefix("after_norm/") for name in metrics if name.startswith(splits)})
    columns = [(split, part) for part in ("", "after_norm/") for split in splits]
    columns = [(s, p) for s, p in columns if any(f"{s}{p}{name}" in metrics for name in names)]
    if not names:
        return empty("The data has no annotation to score the student by.")
    words = {"val/": "validation", "test/": "test", "": "", "after_norm/": ", after the norm"}
    heads = [head("metric"), *(head(words[s] + words[p], right=True) for s, p in columns)]
    rows = [row([cell(name), *(right(score(metrics.get(f"{s}{p}{name}"))) for s, p in columns)]) for name in names]
    return card("", table(heads, rows), "Probes on frozen features; test was read once, at the end.")


def _artifacts(metrics: Mapping[str, float]) -> str:
    """Largest over median patch norm by layer: of the teacher, of what the student was shown, of the student."""
    ratios = {(m[1], int(m[2])): value for name, value in metrics.items() if (m := _LAYER.fullmatch(name))}
    if not ratios:
        return ""
    layers = sorted({layer for _, layer in ratios})
    networks = [name for name in ("teacher", "refined", "student") if any(n == name for n, _ in ratios)]
    heads = [head("block", right=True), *(head(name, right=True) for name in networks)]
    rows = [row([cell(layer), *(right(score(ratios.get((name, layer)))) for name in networks)]) for layer in layers]
    return card("Largest over median patch norm", table(heads, rows), "Blocks of each network by its own number.")


def _pictures(run: RunResult) -> str:
    drawn = "".join(
        f'<figure><img alt="{escape(path.stem)}" src="{picture_address(path)}">'
        f"<figcaption>{CAPTIONS.get(path.stem, escape(path.stem))}</figcaption></figure>"
        for path in run.pictures
    )
    return card("", f'<div class="pictures">{drawn}</div>') if drawn else ""


def _use(run: RunResult) -> str:
    if run.student is None:
        told = "The run is not finished: this goes on with it."
        commands = [["python", "-m", "singer_ray.train", "--resume", str(run.folder)]]
        return card("", f"<pre>{escape(shlex.join(commands[0]))}</pre>", told)
    load = f"import timm\nstudent = timm.create_model({f'local-dir:{run.student}'!r}, pretrained=True)"
    again = ["python", "-m", "singer_ray.train", "--preset", str(run.folder / CONFIG), "--out", "runs/again"]
    used, repeated = escape(load), escape(shlex.join(again))
    return card(
        "", f"<pre>{used}</pre><p>Train it again, with another seed by <code>--seed N</code>:</p><pre>{repeated}</pre>"
    )


def _setting(run: RunResult) -> str:
    parts = []
    if run.rows:
        names = list(dict.fromkeys(name for each in run.rows.values() for name in each))
        shown = [name for name in names if sum(name in each for each in run.rows.values()) > 1 or len(run.rows) == 1]
        rows = [row([cell(each.get(name)) for name in shown]) for each in run.rows.values()]
        whole = table([head(name, right=True) for name in shown], rows, tall=True)
        parts.append(
            f"<details><summary>History: {plural(len(rows), 'epoch')} (history.csv)</summary>{whole}</details>"
        )
    if run.written:
        parts.append(f"<details><summary>Configuration ({CONFIG})</summary><pre>{escape(run.written)}</pre></details>")
    return "".join(parts)
