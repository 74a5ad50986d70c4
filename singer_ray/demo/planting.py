"""Artifacts planted in a small teacher.

They emerge by themselves in large transformers only; in a small one, a few hidden units of one block's MLP are
overwritten so that a few percent of the background patches get a very large token, as in the large ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from singer_ray.method.artifacts import max_median_ratio, patch_norms

BLOCK = 2
CANDIDATES = 64
GAIN, BIAS = 4.0, 2.0
RATIO = 22.0
"""Largest over median token norm behind the planted block, in the mean over images."""


@torch.no_grad()
def plant_artifacts(
    model: nn.Module,
    images: torch.Tensor,
    background: torch.Tensor,
    seed: int,
    *,
    units: int = 3,
    share: float = 0.04,
    number: int = BLOCK,
) -> list[nn.Parameter]:
    """Overwrites the `units` weakest hidden units of the MLP of block `number` in a timm Vision Transformer.

    Each unit fires on the top share / units of the background along a random whitened direction of what the MLP reads
    (of 64 drawn, those that fire in most images and least elsewhere), and then adds a multiple of an orthonormal
    direction of its own, so large that the largest token of an image has 22 times the median norm in the mean.

    Args:
        images: normalised, [batch, 3, height, width].
        background: bool [batch, patches], the patches that units are tuned on.
        units: how many directions the artifacts have.
        share: part of the background patches that become artifacts.
        number: the block, counted from 0; there must be one behind it.

    Returns the parameters to fine-tune afterwards: those behind the planted block. The others must stay frozen, or
    training unlearns the artifacts.
    """
    vit: Any = model  # timm adds its own attributes to modules
    block = vit.blocks[number]
    read: dict[str, torch.Tensor] = {}
    handles = [
        block.norm2.register_forward_hook(lambda _, __, output: read.__setitem__("mlp", output)),
        block.register_forward_hook(lambda _, __, output: read.__setitem__("out", output)),
    ]
    vit.forward_features(images)
    prefix = int(vit.num_prefix_tokens)
    tokens = read["mlp"][:, prefix:].double()
    norm = float(read["out"][:, prefix:].norm(dim=-1).median())

    generator = torch.Generator().manual_seed(seed)
    ground = background[..., None]
    image_means = (tokens * ground).sum(dim=1, keepdim=True) / ground.sum(dim=1, keepdim=True).clamp_min(1)
    centre = tokens[background].mean(dim=0)
    # Whitened by the spread within images: directions that tell images apart would put all artifacts into few of them.
    values, vectors = torch.linalg.eigh((tokens - image_means)[background].mT.cov())
    kept = values > 1e-4 * values.max()  # LayerNorm leaves directions without variance: they cannot be whitened
    whiten = vectors[:, kept] / values[kept].sqrt()
    mixtures = torch.randn(whiten.shape[1], CANDIDATES, generator=generator).double()
    directions = whiten @ (mixtures / mixtures.norm(dim=0))
    projected = (tokens - centre) @ directions
    along = projected[background]
    thresholds = along.quantile(1 - share / units, dim=0)
    fires = projected > thresholds
    reached = (fires & ground).any(dim=1).double().mean(dim=0)
    elsewhere = fires[~background].double().mean(dim=0)
    # Activation starts half a deviation below the threshold. A class token that fires would be an artifact of its own.
    class_tokens = (read["mlp"][:, :prefix].double() - centre) @ directions
    elsewhere += (class_tokens > thresholds - 0.5 * along.std(dim=0)).flatten(0, 1).double().mean(dim=0)
    axes, _ = torch.linalg.qr(torch.randn(int(vit.embed_dim), units, generator=generator))

    fc1, fc2 = block.mlp.fc1, block.mlp.fc2
    strength = fc1.weight.norm(dim=1) * fc2.weight.norm(dim=0)
    chosen = (elsewhere - reached).argsort()[:units].tolist()
    planted = []
    for unit, candidate, axis in zip(strength.argsort()[:units].tolist(), chosen, axes.T):
        direction, gain = directions[:, candidate], GAIN / along[:, candidate].std()
        fc1.weight[unit] = (gain * direction).float()
        fc1.bias[unit] = float(BIAS - gain * (centre @ direction + thresholds[candidate]))
        activation = functional.gelu(gain * (along[:, candidate] - thresholds[candidate]) + BIAS)
        firing = along[:, candidate] > thresholds[candidate]
        fc2.weight[:, unit] = axis / float(activation[firing].mean())
        planted.append(unit)
    columns = fc2.weight[:, planted].clone()
    # The ratio grows with the size of the columns, a little less than in proportion.
    size = norm
    for _ in range(8):
        fc2.weight[:, planted] = size * columns
        vit.forward_features(images)
        size *= RATIO / float(max_median_ratio(patch_norms(read["out"][:, prefix:])).mean())
    for handle in handles:
        handle.remove()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    behind = [*vit.blocks[number + 1 :].parameters()]
    for name in ("norm", "fc_norm", "head"):
        behind += [*getattr(model, name, nn.Identity()).parameters()]
    for parameter in behind:
        parameter.requires_grad_(True)
    return behind
