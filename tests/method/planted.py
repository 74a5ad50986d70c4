"""Small random Vision Transformers into which artifacts are planted."""

from __future__ import annotations

from typing import Any

import timm
import torch

from singer_ray.config import MethodConfig
from singer_ray.demo.planting import BLOCK, plant_artifacts
from singer_ray.method.wrappers.base import TeacherWrapper
from singer_ray.method.wrappers.registry import wrapped
from singer_ray.vision.tapped import TappedViT

SIZE, PATCH, DIM, DEPTH = 24, 4, 32, 4
LAYERS = (2, 3)


def vit(seed: int = 0, **settings: Any) -> Any:
    """Random weights, of a size such that blocks change their tokens; 6 x 6 patches and a class token."""
    torch.manual_seed(seed)
    kept = {"img_size": SIZE, "patch_size": PATCH, "embed_dim": DIM, "depth": DEPTH, "num_heads": 2, "num_classes": 0}
    made: Any = timm.create_model("vit_tiny_patch16_224", **{**kept, **settings})
    made.init_weights("jax")
    return made.eval().requires_grad_(False)


def images(count: int = 48, seed: int = 1) -> torch.Tensor:
    """Patches of noise, some images brighter than others: float32 [count, 3, 24, 24]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, SIZE, SIZE, generator=generator) + torch.randn(count, 1, 1, 1, generator=generator)


def planted(units: int = 2, share: float = 0.08, seed: int = 0, **settings: Any) -> tuple[Any, list[int]]:
    """A random network with artifacts in so many directions behind block 2, and the hidden units that make them."""
    model = vit(seed, **settings)
    before = model.blocks[BLOCK].mlp.fc2.weight.clone()
    shown = images(96, seed=2)
    plant_artifacts(
        model, shown, torch.ones(len(shown), (SIZE // PATCH) ** 2, dtype=torch.bool), seed, units=units, share=share
    )
    model.requires_grad_(False)
    changed = (model.blocks[BLOCK].mlp.fc2.weight != before).any(dim=0)
    return model, changed.nonzero().flatten().tolist()


def wrap(model: Any, name: str, layers: tuple[int, ...] = LAYERS, seed: int = 0, **settings: Any) -> TeacherWrapper:
    """The network through a wrapper, which has seen no images; `settings` are of its own block."""
    tree: dict[str, Any] = {"wrapper": name, "refiner": "none"}
    method = MethodConfig.model_validate(tree | ({name: settings} if settings else {}))
    return wrapped(TappedViT(model, layers, name="teacher tiny"), method, size=SIZE, seed=seed)
