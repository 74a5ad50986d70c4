"""Files of weights as they are found."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch

from singer_ray.errors import UserError
from singer_ray.vision.models import load_teacher
from singer_ray.vision.tapped import TappedViT

NAME = "test_vit"
State = dict[str, Any]


def trained(size: int = 32, classes: int = 10, name: str = NAME, **changes: Any) -> State:
    torch.manual_seed(1)
    model = timm.create_model(name, img_size=size, num_classes=classes, **changes)
    return dict(model.state_dict())


def without_head(state: State) -> State:
    return {name: value for name, value in state.items() if not name.startswith("head.")}


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


WILD: dict[str, Callable[[State], State]] = {
    "as it is": lambda s: s,
    "without head": without_head,
    "{'model': ...}": lambda s: {"model": s, "epoch": 3, "optimizer": {"state": {}}},
    "data parallel": lambda s: {"state_dict": prefixed(s, "module.")},
    "compiled": lambda s: prefixed(s, "_orig_mod."),
    "lightning": lambda s: {"state_dict": prefixed(s, "model.") | {"criterion.weight": torch.zeros(3)}},
    "ema beside": lambda s: {"state_dict": {n: torch.zeros_like(v) for n, v in s.items()}, "state_dict_ema": s},
    "ema inside": lambda s: {"model": prefixed(s, "student.") | prefixed(s, "ema.")},
    "dino": lambda s: {
        "student": prefixed({n: torch.zeros_like(v) for n, v in s.items()}, "module.backbone."),
        "teacher": prefixed(without_head(s), "module.backbone.") | {"module.head.mlp.0.weight": torch.zeros(4, 4)},
    },
    "masked autoencoder": lambda s: {"model": without_head(s) | {"decoder_embed.weight": torch.zeros(8, 8)}},
    "bfloat16": lambda s: {n: v.bfloat16() for n, v in s.items()},
}


def last_tokens(model: Any, size: int = 32) -> torch.Tensor:
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found: torch.Tensor = TappedViT(model.eval(), [len(model.blocks) - 1])(images).tokens[len(model.blocks) - 1]
    return found


@pytest.mark.parametrize("kind", WILD)
def test_checkpoints_of_the_wild_are_read(kind: str, tmp_path: Path) -> None:
    state = trained()
    torch.save(WILD[kind](state), tmp_path / "found.pth")
    teacher = load_teacher(NAME, 32, checkpoint=str(tmp_path / "found.pth"))
    reference = timm.create_model(NAME, img_size=32, num_classes=10)
    reference.load_state_dict(state)
    assert all(p.dtype == torch.float32 for p in teacher.parameters())
    tolerance = 0.1 if kind == "bfloat16" else 1e-6
    torch.testing.assert_close(last_tokens(teacher), last_tokens(reference), atol=tolerance, rtol=tolerance)


def test_position_embeddings_are_resampled_to_the_size_in_use(tmp_path: Path) -> None:
    safetensors.torch.save_file(
        {n: v.contiguous().half() for n, v in trained(64).items()}, tmp_path / "larger.safetensors"
    )
    teacher = load_teacher(NAME, 32, checkpoint=str(tmp_path / "larger.safetensors"))
    assert last_tokens(teacher).shape[1] == TappedViT(teacher, [0]).prefix + 4


@pytest.mark.slow
def test_the_names_of_dinov2_are_translated(tmp_path: Path) -> None:
    name = "vit_small_patch14_reg4_dinov2"
    state = without_head(trained(56, 0, name, depth=12))
    own = {re.sub(r"^blocks\.", "blocks.0.", n).replace("reg_token", "register_tokens"): v for n, v in state.items()}
    own |= {"mask_token": torch.zeros(1, 384)}
    own["pos_embed"] = torch.cat([torch.zeros(1, 1, 384), state["pos_embed"]], dim=1)
    torch.save(
        {"teacher": prefixed(own, "backbone.") | {"dino_head.mlp.0.weight": torch.zeros(4, 4)}}, tmp_path / "x.pth"
    )
    teacher = load_teacher(name, 56, checkpoint=str(tmp_path / "x.pth"))
    assert torch.equal(teacher.state_dict()["blocks.11.mlp.fc1.weight"], state["blocks.11.mlp.fc1.weight"])
    assert torch.equal(teacher.state_dict()["reg_token"], state["reg_token"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda: {"encoder.layer.0.weight": torch.zeros(2)}, r"is not of test_vit: 0 of its \d+ weights are in it"),
        (lambda: {}, "holds no weights"),
        (lambda: torch.zeros(3), "cannot be read|holds no weights"),
        (lambda: trained(name="test_vit2"), "does not fit test_vit: |lacks "),
        (
            lambda: {n: v for n, v in trained().items() if "blocks.3.norm1" not in n},
            r"lacks 2 of the \d+ weights of test_vit: blocks.3.norm1.weight, blocks.3.norm1.bias",
        ),
        (lambda: trained(depth=8), "has 8 blocks, and test_vit has 6"),
        (lambda: trained(embed_dim=32, num_heads=2), "cls_token is 1 x 1 x 32 in the file and 1 x 1 x 64 in"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_reason(content: Any, said: str, tmp_path: Path) -> None:
    torch.save(content(), tmp_path / "other.pth")
    with pytest.raises(UserError, match=said) as caught:
        load_teacher(NAME, 32, checkpoint=str(tmp_path / "other.pth"))
    assert "\n" not in str(caught.value)


class Strange:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("code-was-run"),))


def test_pickled_code_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Strange()}, "strange.pth")
    with pytest.raises(UserError, match=r"strange.pth' cannot be read: .*Give a .safetensors file"):
        load_teacher(NAME, 32, checkpoint="strange.pth")
    assert not Path("code-was-run").exists()
