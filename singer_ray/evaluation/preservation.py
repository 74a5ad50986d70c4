"""What a refiner leaves as it was: the next block's view of the features, and the tokens that were no artifacts."""

from __future__ import annotations

from collections.abc import Callable

import torch

from singer_ray.data.loader import evaluation_batches
from singer_ray.data.source import Source
from singer_ray.data.views import EvaluationView
from singer_ray.method.artifacts import normal_mask, patch_norms
from singer_ray.method.distiller import Distiller
from singer_ray.method.losses import cosine_gram
from singer_ray.vision.models import Normalization
from singer_ray.vision.tapped import Features, TappedViT, evaluating

Refine = Callable[[int, torch.Tensor], torch.Tensor]
"""(layer, F_l) -> F^_l, [batch, prefix + patches, dim]."""


def preservation_metrics(
    teacher: TappedViT,
    distiller: Distiller,
    normalize: Normalization,
    source: Source,
    view: EvaluationView,
    device: torch.device,
) -> dict[str, float]:
    """`changes_of` the student's target, at each distilled layer, as `refined/NAME/LAYER`.

    They are changes of the network as it is, also where it is read through a wrapper.
    """
    layers = sorted({m for n in distiller.layers for m in (n, min(n + 1, teacher.depth - 1))})
    network = TappedViT(teacher.model, layers)
    with evaluating(distiller):
        batch = next(evaluation_batches(source, view, batch_size=len(source)))
        pixels = normalize(batch["image"].to(device))
        features = network(pixels)
        read = features.tokens if teacher.plain is teacher else teacher(pixels).tokens
        targets = {n: distiller.target(n, read[n]) for n in distiller.layers}
        return {
            f"refined/{name}/{layer}": value
            for layer in distiller.layers
            for name, value in changes_of(network, features, layer, lambda n, _: targets[n]).items()
        }


@torch.no_grad()
def changes_of(teacher: TappedViT, features: Features, layer: int, refine: Refine) -> dict[str, float]:
    """Relative changes (Frobenius norm of the difference over that of the original), over the patches of all images.

    `branch_change`: of the next block's branches, block(x) - x; `output_change`: of its output, where the skip
    connection carries the refinement on; `gram_change`: of the patch Gram matrix of that output; `normal_change`: of
    the tokens at `layer` that no artifact touches (at most 1.5 x the median). Behind the last block there is no next
    one: only the Gram matrix of F_l itself and `normal_change` are given.
    """
    original = features.tokens[layer]
    refined = refine(layer, original)
    patches = slice(teacher.prefix, None)
    normal = normal_mask(patch_norms(original[:, patches]))
    changes = {"normal_change": _relative(refined[:, patches][normal], original[:, patches][normal])}
    if layer + 1 == teacher.depth:
        changes["gram_change"] = _relative(cosine_gram(refined[:, patches]), cosine_gram(original[:, patches]))
        return changes
    before, after = (teacher.replay(layer + 1, tokens, features) for tokens in (original, refined))
    changes["branch_change"] = _relative((after - refined)[:, patches], (before - original)[:, patches])
    changes["output_change"] = _relative(after[:, patches], before[:, patches])
    changes["gram_change"] = _relative(cosine_gram(after[:, patches]), cosine_gram(before[:, patches]))
    return changes


def _relative(changed: torch.Tensor, original: torch.Tensor) -> float:
    reference = original.float().norm()
    return float((changed.float() - original.float()).norm() / reference.clamp_min(1e-12))
