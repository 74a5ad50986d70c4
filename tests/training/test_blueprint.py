"""What a dry run checks, and that it does so without weights or memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from singer_ray.config import Config, load_preset
from singer_ray.distillation import run_distillation
from singer_ray.errors import UserError
from singer_ray.search.space.dead import space_remarks
from singer_ray.search.space.space import load_space
from singer_ray.training.blueprint import check_run, check_search
from singer_ray.training.context import TrainContext
from singer_ray.training.launch import Inputs
from singer_ray.vision.models import load_teacher


def demo(**settings: Any) -> Config:
    return load_preset("demo").override({name.replace("__", "."): value for name, value in settings.items()})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"teacher__name": "vit_tiny_patch16_225"}, "is not a timm model"),
        ({"teacher__name": "resnet50"}, "has no transformer blocks"),
        ({"teacher__name": "cait_xxs24_224"}, "cannot be read block by block"),
        ({"teacher__checkpoint": "gone.pth"}, "is not a file"),
        ({"teacher__layers": [3, 9]}, "has layers 0 to 5"),
        ({"student__width": 50, "student__heads": 3}, "cannot be made"),
        ({"student__depth": 1}, "each needs its own"),
        ({"student__layers": [1, 7]}, "has layers 0 to 2"),
        ({"student__patch_size": 64}, "patches of 64 pixels"),
        ({"student__name": "cait_xxs24_224"}, "student.name|student cait_xxs24_224"),
        ({"student__checkpoint": "gone.pth"}, r"student\.checkpoint 'gone\.pth' is not a file"),
        ({"student__pretrained": True}, "cls_token is 1 x 1 x 192 in it and 1 x 1 x 48 in the model"),
        ({"student__init": "copy", "student__width": 96}, "is 96 wide, teacher demo 64"),
        ({"student__registers": 2, "student__name": "beit_base_patch16_224"}, "cannot have register tokens"),
        ({"method__rank": 500}, "above the teacher's width 64"),
        ({"method__variant": "official", "teacher__layers": [5]}, "Name two layers or more"),
        ({"train__launcher": "local", "train__workers": 2}, "runs one worker"),
        ({"evaluation__data__source": "imagefolder"}, "evaluation.data.train"),
    ],
)
def test_what_a_run_would_refuse_a_dry_run_refuses(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_run(demo(**settings))


@pytest.mark.slow
def test_a_sound_run_is_outlined_and_fetches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda *_, **__: pytest.fail("weights were fetched"))
    plan = check_run(
        demo(teacher__name="vit_large_patch16_224.augreg_in21k", data__image_size=64, teacher__layers=[17, 23])
    )
    assert all(p.is_meta for p in plan.teacher.parameters())
    assert plan.annotations == {"label", "mask", "depth"}


@pytest.mark.slow
def test_the_corners_of_a_space_are_outlined() -> None:
    config = demo()
    space = load_space({"method.rank": {"type": "int", "low": 4, "high": 500}}, config)
    with pytest.raises(UserError, match=r"The search space reaches what cannot be built: method.rank 500"):
        check_search(config, space.corners(config))


@pytest.mark.slow
def test_a_space_may_search_how_students_are_made() -> None:
    config = demo()
    space = load_space(
        {
            "student.registers": {"type": "choice", "values": [0, 1, 4]},
            "student.init": {"type": "choice", "values": ["random", "copy"]},
            "train.ema": {"type": "choice", "values": [0.0, 0.99]},
            "method.projector": {"type": "choice", "values": ["linear", "mlp", "orthogonal"]},
        },
        config,
    )
    assert space_remarks(space, config, []) == []
    check_search(config, space.corners(config))
    wider = space.corners(config.override({"student.width": 96}))
    with pytest.raises(UserError, match=r"space reaches what cannot be built: student\.init copy: .* 96 wide"):
        check_search(config, wider)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_a_teacher_in_half_precision_trains(small: Config, tmp_path: Any, kind: torch.dtype) -> None:
    teacher = load_teacher("demo", 32).to(kind)
    context = TrainContext(small, teacher=teacher)
    batch = next(context.batches(batch_size=4, seed=0))
    tokens = context.teacher_pass(context.last_teacher, context.pixels(batch)).tokens[5]
    assert tokens.dtype == torch.float32
    if kind == torch.float16:
        config = small.override({"train.epochs": 1, "train.steps_per_epoch": 1})
        lines: list[str] = []
        inputs = Inputs(load_teacher("demo", 32).to(kind))
        done = run_distillation(
            config.override({"method.clip.ratio": 2.0}),
            tmp_path / "out",
            inputs=inputs,
            given=["method.clip.ratio"],
            log=lines.append,
        )
        assert done.metrics["train/loss"] > 0
        assert any(line.startswith("note: method.clip.ratio has no effect") for line in lines)
