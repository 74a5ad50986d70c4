"""How large the artifacts are: in the teacher, in its refined features, and in the student."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from singer_ray.data.loader import evaluation_batches
from singer_ray.data.source import Source
from singer_ray.data.views import EvaluationView
from singer_ray.evaluation.scores import artifact_share
from singer_ray.method.artifacts import gram_cosine, max_median_ratio, patch_norms
from singer_ray.vision.models import Normalization
from singer_ray.vision.tapped import TappedViT, evaluating

if TYPE_CHECKING:
    from singer_ray.method.distiller import Distiller


def norm_metrics(
    teacher: TappedViT,
    distiller: Distiller,
    normalize: Normalization,
    source: Source,
    view: EvaluationView,
    device: torch.device,
    *,
    batch_size: int,
) -> dict[str, float]:
    """Means over the images of `source`, at each distilled layer.

    `teacher/`, `refined/`, `student/` + `max_median_norm/LAYER`: largest patch norm over median patch norm of an image.
    `refined/gram_cosine/LAYER`: cosine of the patch Gram matrices of refined and original features.
    The teacher is the network as it is, also where it is read through a wrapper, which is a part of the refinement.
    LAYER counts teacher layers, for the student its own.
    """
    sums: dict[str, float] = {}
    images = 0
    with evaluating(distiller):
        for batch in evaluation_batches(source, view, batch_size=batch_size):
            pixels = normalize(batch["image"].to(device))
            features, student = teacher(pixels).tokens, distiller.student(pixels).tokens
            originals = features if teacher.plain is teacher else teacher.plain(pixels).tokens
            images += len(pixels)
            for layer, student_layer in zip(distiller.layers, distiller.student_layers):
                original, refined = originals[layer], distiller.target(layer, features[layer])
                patches = {
                    f"teacher/max_median_norm/{layer}": original[:, teacher.prefix :],
                    f"refined/max_median_norm/{layer}": refined[:, teacher.prefix :],
                    f"student/max_median_norm/{student_layer}": student[student_layer][:, distiller.student.prefix :],
                }
                ratios = {name: max_median_ratio(patch_norms(tokens)) for name, tokens in patches.items()}
                ratios[f"refined/gram_cosine/{layer}"] = gram_cosine(
                    refined[:, teacher.prefix :], original[:, teacher.prefix :]
                )
                for name, values in ratios.items():
                    sums[name] = sums.get(name, 0.0) + float(values.sum())
    return {name: total / images for name, total in sums.items()}


def student_metrics(
    distiller: Distiller,
    normalize: Normalization,
    source: Source,
    view: EvaluationView,
    device: torch.device,
    *,
    ratio: float,
) -> dict[str, float]:
    """What a search may weigh against the scores, cheap enough for every epoch.

    `student/parameters`: their number; `student/artifact_share`: share of the last block's patches, over the images of
    `source`, that are longer than `ratio` x the median of their image.
    """
    student = distiller.student
    last = TappedViT(student.model, [student.depth - 1])
    with evaluating(distiller), torch.no_grad():
        batch = next(evaluation_batches(source, view, batch_size=len(source)))
        tokens = last(normalize(batch["image"].to(device))).tokens[student.depth - 1]
    return {
        "student/parameters": float(sum(p.numel() for p in student.model.parameters())),
        "student/artifact_share": artifact_share(patch_norms(tokens[:, student.prefix :]), ratio),
    }
