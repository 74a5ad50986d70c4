"""Supervised training of a small teacher on a labelled source, and the planting of artifacts in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from singer_ray.data.loader import training_batches
from singer_ray.data.source import Source
from singer_ray.data.views import TrainingView
from singer_ray.evaluation.patch_targets import IGNORE, patch_classes, patch_depth
from singer_ray.training.schedule import warmup_cosine
from singer_ray.vision.models import normalization_of

SEGMENTATION_WEIGHT, DEPTH_WEIGHT = 2.0, 4.0


class SupervisedTeacher(nn.Module):
    """A timm Vision Transformer with a linear segmentation and a linear depth head where the source has such targets.

    Only the transformer and its classification head are kept afterwards.
    """

    def __init__(self, model: nn.Module, source: Source) -> None:
        super().__init__()
        self.model = cast(Any, model)  # timm adds its own attributes to modules
        self.mask_classes = len(source.mask_classes)
        width = int(self.model.embed_dim)
        self.segmentation = nn.Linear(width, self.mask_classes) if "mask" in source.fields else None
        self.depth = nn.Linear(width, 1) if "depth" in source.fields else None

    def forward(self, images: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Cross-entropy of the label, plus 2 x that of the patch classes, plus 4 x the squared error of patch depth."""
        tokens = self.model.forward_features(images)
        patches = tokens[:, self.model.num_prefix_tokens :]
        side = round(patches.shape[1] ** 0.5)
        loss = functional.cross_entropy(self.model.forward_head(tokens), batch["label"])
        if self.segmentation is not None:
            target = patch_classes(batch["mask"], (side, side), self.mask_classes)
            loss = loss + SEGMENTATION_WEIGHT * _cross_entropy(self.segmentation(patches).mT, target)
        if self.depth is not None:
            target = patch_depth(batch["depth"], (side, side))
            loss = loss + DEPTH_WEIGHT * functional.mse_loss(self.depth(patches)[..., 0], target)
        return loss


def _cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean over the patches of a known class; 0 where there is none. [batch, classes, patches], [batch, patches]."""
    if (target == IGNORE).all():
        return logits.sum() * 0
    return functional.cross_entropy(logits, target, ignore_index=IGNORE)


def fit_supervised(
    teacher: SupervisedTeacher,
    source: Source,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    seed: int,
    size: int,
    device: torch.device,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """AdamW with warm-up and cosine over whatever parameters require a gradient."""
    normalize = normalization_of(teacher.model)
    trained = [p for p in teacher.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=weight_decay)
    view = TrainingView(size, 1.0, "none", (1.0, 1.0), seed)
    batches = training_batches(source, view, batch_size=batch_size, seed=seed, annotations=True)
    teacher.to(device).train()
    for step in range(steps):
        batch = {key: value.to(device) for key, value in next(batches).items()}
        for group in optimizer.param_groups:
            group["lr"] = lr * warmup_cosine(step, steps, max(1, steps // 20))
        loss = teacher(normalize(batch["image"]), batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        progress(step + 1, float(loss.detach()))
    teacher.eval()
