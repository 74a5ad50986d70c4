"""How much of feature distillation is about artifacts: their share of the loss and of its gradient.

The paper's gradient bias (arXiv 2509.20986): under a mean squared error a few tokens of very high norm
make most of the loss, and so decide where the student goes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from singer_ray.method.artifacts import outlier_mask, patch_norms
from singer_ray.method.distiller import Distiller
from singer_ray.training.context import TrainContext
from singer_ray.training.loop import DivergedError
from singer_ray.training.sharing import SharedPasses
from singer_ray.training.trainer import StudentTrainer
from singer_ray.vision.tapped import Features


@dataclass(frozen=True)
class GradientBias:
    """What the outlier tokens weigh in L_KD on one batch.

    The loss of a token is the mean over channels of the squared difference between the scaled target and the
    projection; L_KD is the sum over layers of its mean over tokens. Splitting that sum by token gives L_KD =
    L_artifact + L_rest, whose gradients g_artifact and g_rest are with respect to student and projections.

    Compare gradients of one and the same student, before training: where training has come to rest, the two cancel on
    the training set whatever their size, so that the cosine tends to -1 and the share to 1/2. The loss share has no
    such limit.
    """

    loss_share: float
    """L_artifact / L_KD"""
    gradient_share: float
    """|g_artifact| / (|g_artifact| + |g_rest|); 0 without outlier tokens."""
    cosine: float | None
    """Between g_artifact and g_rest; below 0 what helps the one hurts the other. None if either is 0."""
    layer_loss_shares: Mapping[int, float]
    """`loss_share` of each distilled layer alone."""

    def metrics(self, prefix: str) -> dict[str, float]:
        """Flat names, `PREFIX/loss_share` and so on."""
        metrics = {f"{prefix}/loss_share": self.loss_share, f"{prefix}/gradient_share": self.gradient_share}
        if self.cosine is not None:
            metrics[f"{prefix}/gradient_cosine"] = self.cosine
        return metrics | {f"{prefix}/loss_share/{layer}": share for layer, share in self.layer_loss_shares.items()}


def fair_gradient_share(token_share: float) -> float:
    """The largest `gradient_share` that tokens would have by their number alone, 0 to 1.

    Gradients of n tokens that have nothing in common add up to a norm that grows as sqrt(n), those of tokens that agree
    as n; for few tokens the first gives the larger share.
    """
    few, rest = math.sqrt(token_share), math.sqrt(1 - token_share)
    return few / (few + rest)


def teacher_outliers(features: Features, layers: Sequence[int], prefix: int, k: float) -> dict[int, torch.Tensor]:
    """Layer -> bool [batch, patches]: patches above k x the median norm of their image in the original teacher."""
    return {n: outlier_mask(patch_norms(features.tokens[n][:, prefix:]), k) for n in layers}


def measure_bias(
    distiller: Distiller, pixels: torch.Tensor, features: Features, outliers: Mapping[int, torch.Tensor]
) -> GradientBias:
    """The gradient bias of `distiller` as it stands, on one batch; nothing is changed.

    `outliers` comes from the original teacher (`teacher_outliers`) whatever the refiner, so that figures before and
    after refinement are about the same tokens. The student is in evaluation mode meanwhile.
    """
    mode = distiller.training
    distiller.eval()
    try:
        losses = distiller.token_losses(pixels, features)
        parts: dict[str, list[torch.Tensor]] = {"artifact": [], "rest": []}
        for layer, loss in losses.items():
            # A class token, where there is one, comes before the patches and is never an outlier.
            mask = functional.pad(outliers[layer], (loss.shape[1] - outliers[layer].shape[1], 0), value=False)
            parts["artifact"].append(torch.where(mask, loss, 0.0).sum() / loss.numel())
            parts["rest"].append(torch.where(mask, 0.0, loss).sum() / loss.numel())
        artifact, rest = torch.stack(parts["artifact"]), torch.stack(parts["rest"])
        gradients = [_gradient(distiller, part.sum()) for part in (artifact, rest)]
    finally:
        distiller.train(mode)
    sizes = [float(gradient.norm()) for gradient in gradients]
    artifact, rest = artifact.detach(), rest.detach()
    cosine = float(gradients[0] @ gradients[1]) / (sizes[0] * sizes[1]) if all(sizes) else None
    by_layer = (artifact / (artifact + rest).clamp_min(1e-30)).tolist()
    return GradientBias(
        float(artifact.sum() / (artifact.sum() + rest.sum()).clamp_min(1e-30)),
        sizes[0] / max(sum(sizes), 1e-300),
        cosine,
        dict(zip(losses, by_layer)),
    )


def track_bias(
    context: TrainContext, arms: Mapping[str, StudentTrainer], probe: torch.Tensor, *, k: float, steps: int, every: int
) -> Iterator[tuple[int, dict[str, GradientBias]]]:
    """Trains the trainers side by side for `steps` steps on the same batches and teacher passes.

    Yields (steps done, name -> bias on the images `probe`) before the first step, after each `every` and after the
    last. `probe` is normalised, [batch, 3, size, size]. Raises DivergedError.
    """
    passes, first = SharedPasses(arms), next(iter(arms.values()))
    features = passes(context, probe)
    layers, teacher = first.distiller.layers, first.teacher
    original = context.teacher_pass(teacher.plain, probe)
    outliers = teacher_outliers(original, layers, teacher.prefix, k)
    batches = (
        context.batches(batch_size=context.config.train.batch_size, seed=context.config.seed) if steps else iter(())
    )
    for step in range(steps + 1):
        if step % every == 0 or step == steps:
            with context.autocast():
                biases = {name: measure_bias(m.distiller, probe, features[name], outliers) for name, m in arms.items()}
            yield step, biases
        if step == steps:
            return
        pixels = context.pixels(next(batches))
        step_features = passes(context, pixels)
        for name, trainer in arms.items():
            loss = float(trainer.step(pixels, step_features[name])["loss"])
            if not math.isfinite(loss):
                raise DivergedError(
                    f"The loss is no longer finite with refiner {name} in step {step + 1} (train.lr "
                    f"{context.config.train.lr}). Lower train.lr, or set train.clip_grad."
                )


def _gradient(distiller: Distiller, loss: torch.Tensor) -> torch.Tensor:
    """d loss / d (student and projections), as one float64 vector; parameters that it does not reach count 0."""
    learning = [*distiller.student.parameters(), *distiller.projections.parameters()]
    trained = [p for p in learning if p.requires_grad]
    gradients = torch.autograd.grad(loss, trained, retain_graph=True, allow_unused=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten().double() for p, g in zip(trained, gradients)])
