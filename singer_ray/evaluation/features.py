"""Features of a whole source, computed once and read by every probe."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from singer_ray.data.loader import evaluation_batches
from singer_ray.data.source import Source
from singer_ray.data.targets import label_error
from singer_ray.data.views import EvaluationView
from singer_ray.errors import UserError
from singer_ray.evaluation.patch_targets import IGNORE, patch_classes, patch_depth
from singer_ray.vision.models import Normalization
from singer_ray.vision.tapped import TappedViT, evaluating


@dataclass(frozen=True)
class Annotations:
    """What is known of the images; None where the source does not say."""

    labels: torch.Tensor | None
    """[images]"""
    patch_classes: torch.Tensor | None
    """[images, patches], IGNORE where nothing is known"""
    patch_depth: torch.Tensor | None
    """[images, patches]"""


@dataclass(frozen=True)
class PixelAnnotations:
    """What is known of the pixels of a view, on the CPU; None where the source does not say."""

    masks: torch.Tensor | None
    """int16 [images, size, size], IGNORE where nothing is known"""
    depth: torch.Tensor | None
    """float32 [images, size, size]"""


@dataclass(frozen=True)
class ProbeFeatures:
    """Last-block features of every image of a source, pooled and by patch."""

    pooled: torch.Tensor
    """float32 [images, dim]"""
    patches: torch.Tensor
    """float32 [images, patches, dim]"""
    class_token: torch.Tensor | None = None
    """float32 [images, dim]; None where the network has no class token."""


@torch.no_grad()
def annotations_of(
    source: Source,
    view: EvaluationView,
    grid: tuple[int, int],
    device: torch.device,
    covered: tuple[int, int] | None = None,
) -> Annotations:
    """Labels, and masks and depth brought to the `grid` of patches, which covers so many pixels of the view.

    Raises UserError for a label that is no class of the source.
    """
    labels: list[torch.Tensor] = []
    masks, depth = [], []
    for batch in evaluation_batches(source, view, batch_size=256):
        if "label" in source.fields:
            labels.append(_checked(batch["label"], len(source.classes), 256 * len(labels)))
        if "mask" in source.fields:
            masks.append(patch_classes(batch["mask"], grid, len(source.mask_classes), covered))
        if "depth" in source.fields:
            depth.append(patch_depth(batch["depth"], grid, covered))
    annotations = [torch.cat(parts).to(device) if parts else None for parts in (labels, masks, depth)]
    return Annotations(*annotations)


def pixel_annotations_of(source: Source, view: EvaluationView) -> PixelAnnotations:
    """Masks and depth as the view shows them; mask values outside the source's classes become IGNORE."""
    masks, depth = [], []
    for batch in evaluation_batches(source, view, batch_size=256):
        if "mask" in source.fields:
            mask = batch["mask"].to(torch.int16)
            masks.append(mask.where((mask >= 0) & (mask < len(source.mask_classes)), IGNORE))
        if "depth" in source.fields:
            depth.append(batch["depth"].float())
    return PixelAnnotations(*(torch.cat(parts) if parts else None for parts in (masks, depth)))


def features_of(
    network: TappedViT,
    normalize: Normalization,
    source: Source,
    view: EvaluationView,
    device: torch.device,
    *,
    pooling: str,
    batch_size: int,
    workers: int = 0,
) -> dict[str, ProbeFeatures]:
    """`before_norm`: the last block's output; `after_norm`: the same through the model's own final norm.

    `pooling` is "mean" (over the patches) or "class" (the class token).
    """
    parts: dict[str, list[ProbeFeatures]] = {"before_norm": [], "after_norm": []}
    last = network.depth - 1
    norm = network.final_norm
    with evaluating(network):
        for batch in evaluation_batches(source, view, batch_size=batch_size, workers=workers):
            tokens = network(normalize(batch["image"].to(device))).tokens[last]
            for name, read in (("before_norm", tokens), ("after_norm", norm(tokens))):
                patches, first = read[:, network.prefix :].float(), read[:, 0].float()
                pooled = patches.mean(dim=1) if pooling == "mean" else first
                parts[name].append(ProbeFeatures(pooled, patches, first if network.has_class_token else None))
    return {name: _joined(batches) for name, batches in parts.items()}


def _checked(labels: torch.Tensor, classes: int, first: int) -> torch.Tensor:
    wrong = ((labels < 0) | (labels >= classes)).nonzero()
    if len(wrong):
        place = int(wrong[0])
        raise UserError(label_error("the probes' images", first + place, int(labels[place]), classes))
    return labels


def _joined(parts: list[ProbeFeatures]) -> ProbeFeatures:
    first = [part.class_token for part in parts if part.class_token is not None]
    return ProbeFeatures(
        torch.cat([part.pooled for part in parts]),
        torch.cat([part.patches for part in parts]),
        torch.cat(first) if first else None,
    )
