"""All pictures of an analysis, from its findings."""

from __future__ import annotations

from pathlib import Path

import torch

from singer_ray.analysis.figures import draw_gradient_share, draw_layers
from singer_ray.analysis.findings import Findings
from singer_ray.analysis.gradient_bias import fair_gradient_share
from singer_ray.data.loader import evaluation_batches
from singer_ray.evaluation.pictures import (
    TokenSet,
    draw_norm_histograms,
    draw_norms,
    draw_pca,
    sample_images,
)
from singer_ray.layout import GRADIENT_SHARE, LAYERS, NORM_HISTOGRAMS, NORM_MAPS, PCA
from singer_ray.method.artifacts import normal_mask, patch_norms, relative_norms
from singer_ray.vision.tapped import evaluating

PANELS = 9


def draw_all(findings: Findings, out: Path) -> None:
    """layers.png, norm_histograms.png, gradient_share.png, norm_maps.png and pca.png in `out`."""
    draw_layers(out / LAYERS, findings.reports, findings.layers)
    _draw_histograms(findings, out / NORM_HISTOGRAMS)
    fair = fair_gradient_share(findings.token_share)
    draw_gradient_share(out / GRADIENT_SHARE, findings.track, findings.token_share, fair)
    _draw_features(findings, out)


def _draw_histograms(findings: Findings, path: Path) -> None:
    depth = len(findings.reports)
    spread = {round(i * (depth - 1) / (PANELS - 1)) for i in range(PANELS)} if depth > PANELS else set(findings.reports)
    others = [n for n in sorted(spread) if n not in findings.layers][: max(0, PANELS - len(findings.layers))]
    layers = sorted({*findings.layers, *others})
    refined = _refined_norms(findings)
    panels = {}
    for n in layers:
        series = {"teacher": findings.reports[n].relative_norms}
        series |= {f"refined ({name})": norms[n] for name, norms in refined.items() if n in norms}
        panels[f"block {n}" + (" (distilled)" if n in findings.layers else "")] = series
    draw_norm_histograms(path, panels, findings.settings.k)


def _refined_norms(findings: Findings) -> dict[str, dict[int, torch.Tensor]]:
    """Refiner -> layer -> norms of the student's targets, over the median of the image."""
    context, refined = findings.context, {}
    for name, trainer in findings.arms.items():
        if name == "none":
            continue
        parts: dict[int, list[torch.Tensor]] = {n: [] for n in findings.layers}
        with evaluating(trainer.distiller):
            for batch in evaluation_batches(
                findings.source, context.evaluation_view, batch_size=context.config.evaluation.batch_size
            ):
                features = trainer.teacher(context.pixels(batch))
                for n in findings.layers:
                    target = trainer.distiller.target(n, features.tokens[n])[:, trainer.teacher.prefix :]
                    parts[n].append(relative_norms(patch_norms(target)).cpu())
        refined[name] = {n: torch.cat(norms) for n, norms in parts.items()}
    return refined


def _draw_features(findings: Findings, out: Path) -> None:
    """Norm maps and principal components of teacher, refined teacher and students, at the last distilled layer."""
    context = findings.context
    images = sample_images(findings.source, context.evaluation_view)
    pixels = context.normalize(images.to(context.device))
    layer = findings.layers[-1]
    first = findings.arms["none"]
    with evaluating(context.teacher_model, *(trainer.distiller for trainer in findings.arms.values())):
        prefix, grid = first.teacher.prefix, first.distiller.teacher_grid
        original = first.teacher.plain(pixels).tokens[layer][:, prefix:]
        own = [TokenSet(f"teacher\nblock {layer}", original, grid)]
        shared = list(own)
        students: list[TokenSet] = []
        projected: list[TokenSet] = []
        for name, trainer in findings.arms.items():
            distiller = trainer.distiller
            if name != "none":
                target = distiller.target(layer, trainer.teacher(pixels).tokens[layer])[:, prefix:]
                refined = TokenSet(f"refined\n({name})", target, grid)
                own.append(refined)
                shared.append(refined)
            if findings.settings.steps:
                seen = distiller.student(pixels).tokens[distiller.student_layers[-1]]
                label = "student,\nno refiner" if name == "none" else f"student,\nrefiner {name}"
                students.append(TokenSet(label, seen[:, distiller.student.prefix :], distiller.student_grid))
                if distiller.refiner.projects:
                    projected.append(TokenSet(label, distiller.projected(layer, seen), distiller.student_grid))
    draw_norms(out / NORM_MAPS, images, [*own, *students])
    normal = original[normal_mask(patch_norms(original))]
    draw_pca(out / PCA, images, [*shared, *projected], normal)
