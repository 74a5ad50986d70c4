"""One analysis from start to finish: survey the teacher, measure the bias of distillation, judge, draw, write."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from singer_ray.analysis.artifacts import LayerReport, survey_layers
from singer_ray.analysis.findings import AnalysisSettings, Findings, Track
from singer_ray.analysis.gradient_bias import (
    fair_gradient_share,
    track_bias,
)
from singer_ray.analysis.verdict import judge
from singer_ray.data.loader import evaluation_batches
from singer_ray.data.source import Source, shuffled_subset
from singer_ray.evaluation.norms import norm_metrics
from singer_ray.layout import CONFIG, RESULT
from singer_ray.publishing.result import build_result, write_json
from singer_ray.storage import write_whole
from singer_ray.training.context import TrainContext
from singer_ray.training.launch import Inputs
from singer_ray.training.trainer import StudentTrainer

if TYPE_CHECKING:
    from singer_ray.config import Config

MEASUREMENTS = 12
"""How often the bias is measured over training."""
PROBE_IMAGES = 64
"""Images of the batch that it is measured on."""


def run_analysis(
    config: Config,
    out: Path | None,
    settings: AnalysisSettings,
    *,
    inputs: Inputs | None = None,
    prepare: Callable[[], object] = lambda: None,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Analyses the teacher of `config` on its images and fills OUT (None: nothing); returns what result.json holds.

    `inputs` are a teacher and data sets of one's own.

    Nothing is written before all is measured: `prepare` readies the folder then. Raises UserError for what the user
    can mend.
    """
    begin = time.perf_counter()
    config = config.override({"train.epochs": 1, "train.steps_per_epoch": max(1, settings.steps)})
    context = (inputs or Inputs()).context(config)
    arms = {name: StudentTrainer(context, config.override(settings)) for name, settings in _arms(config).items()}
    remarks = context.remarks
    for line in remarks:
        log(f"note: {line}")
    source = shuffled_subset(context.suite.sources.get("val", context.train), settings.images)
    reports = _survey(context, source, settings, log)
    findings = Findings(context, source, reports, arms, _track(context, arms, source, reports, settings, log), settings)
    verdict = judge(
        config.teacher.name, reports, findings.layers, findings.track, k=settings.k, width=context.last_teacher.width
    )
    metrics = _metrics(findings)
    if out is not None:
        log("drawing pictures")
        prepare()
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / CONFIG, config.to_yaml())
        _draw(findings, out)
    result = build_result(config.model_dump(mode="json"), metrics, time.perf_counter() - begin, remarks)
    result |= {
        "verdict": vars(verdict),
        "analysis": vars(settings),
        "layers": {str(n): report.detail() for n, report in reports.items()},
        "training": [
            {"step": step, **{name: vars(bias) for name, bias in biases.items()}} for step, biases in findings.track
        ],
    }
    if out is not None:
        write_json(out / RESULT, result)
    log(verdict.text)
    return result


def _arms(config: Config) -> dict[str, dict[str, str]]:
    """The students that are compared: of the teacher as it is, and of what wrapper and refiner make of it."""
    plain = {"method.refiner": "none", "method.wrapper": "none"}
    chosen = [name for name in (config.method.wrapper, config.method.refiner) if name != "none"]
    return {"none": plain} | ({"+".join(chosen): {}} if chosen else {})


def _survey(
    context: TrainContext, source: Source, settings: AnalysisSettings, log: Callable[[str], None]
) -> dict[int, LayerReport]:
    teacher = context.tapped_teacher(list(range(context.last_teacher.depth)))
    size, rank = context.config.data.image_size, min(context.config.method.rank, teacher.width)
    log(f"reading {len(source)} images at {teacher.depth} blocks of {context.teacher_name}")
    reports = survey_layers(teacher, _pixels(context, source), teacher.grid(size), k=settings.k, rank=rank)
    for layer, report in reports.items():
        number = report.nature.number
        directions = f", {number} direction{'s' * (number > 1)}" if number else ""
        distilled = " *" if layer in context.distilled_layers() else ""
        log(
            f"block {layer:2d}  max/median {report.max_median:6.2f}  outliers {report.token_share:6.2%} of tokens, "
            f"{report.energy_share:6.2%} of energy{directions}{distilled}"
        )
    return reports


def _track(
    context: TrainContext,
    arms: dict[str, StudentTrainer],
    source: Source,
    reports: dict[int, LayerReport],
    settings: AnalysisSettings,
    log: Callable[[str], None],
) -> Track:
    probe = next(_pixels(context, source, PROBE_IMAGES))
    for trainer in arms.values():  # students and projections start alike under every refiner
        trainer.prepare(log)
    every = max(1, settings.steps // MEASUREMENTS)
    if not any(reports[n].outliers.any() for n in context.distilled_layers()):
        every = max(1, settings.steps)  # all shares are 0, and stay so
    track = []
    for step, biases in track_bias(context, arms, probe, k=settings.k, steps=settings.steps, every=every):
        shares = ", ".join(f"{name} {b.loss_share:.1%} / {b.gradient_share:.1%}" for name, b in biases.items())
        log(f"step {step:4d} of {settings.steps}: outliers' share of KD loss / of its gradient: {shares}")
        track.append((step, biases))
    return track


def _metrics(findings: Findings) -> dict[str, float]:
    """Flat names: `teacher/...` of every block, `refined/...` after fitting, `bias_start/...`, `bias_end/...`."""
    metrics: dict[str, float] = {}
    for layer, report in findings.reports.items():
        metrics |= report.metrics(layer)
    for place, (_, biases) in (("start", findings.track[0]), ("end", findings.track[-1])):
        for name, bias in biases.items():
            metrics |= bias.metrics(f"bias_{place}/{name}")
    metrics["bias_start/fair_gradient_share"] = fair_gradient_share(findings.token_share)
    for name, trainer in findings.arms.items():
        sizes = norm_metrics(
            trainer.teacher,
            trainer.distiller,
            findings.context.normalize,
            findings.source,
            findings.context.evaluation_view,
            findings.context.device,
            batch_size=findings.context.config.evaluation.batch_size,
        )
        if name != "none":
            metrics |= {key: value for key, value in sizes.items() if key.startswith("refined/")}
        if findings.settings.steps:
            metrics |= {f"student/{name}/{key[8:]}": v for key, v in sizes.items() if key.startswith("student/")}
    return metrics


def _draw(findings: Findings, out: Path) -> None:
    # Matplotlib takes a second to import, which --help and refusals should not wait for.
    from singer_ray.analysis.pictures import draw_all

    draw_all(findings, out)


def _pixels(context: TrainContext, source: Source, batch_size: int | None = None) -> Iterator[torch.Tensor]:
    size = batch_size or context.config.evaluation.batch_size
    for batch in evaluation_batches(source, context.evaluation_view, batch_size=size):
        yield context.pixels(batch)
